"""The tree of exceptions is whole: no exception class of the product is defined anywhere else."""

from __future__ import annotations

import importlib
import pickle
import pkgutil
import re
from collections.abc import Iterator

import pytest

import actors
import cli
import relay
from relay import errors

ARGUMENTS = {
    errors.ConfigError: ("shards[3].stream", "names no stream", "write btcusdt@trade"),
    errors.InvalidValueError: (errors.ConfigError("", "names no stream"),),
    errors.FeedError: ("closed", 1.5),
    errors.HandshakeRefusedError: ("HTTP 429", 60.0),
    errors.RestError: ("HTTP 429", 60.0, True),
    errors.FencedError: ("usdm:btcusdt@trade", 8),
    errors.DamagedBatchError: (17, "checksum differs"),
    errors.RefusedError: ("STREAM.INFO.X", 10059, "stream not found"),
}


def exceptions_of(package: str) -> Iterator[type[BaseException]]:
    """Those that are defined in it, in whatever module."""
    root = importlib.import_module(package)
    for found in pkgutil.walk_packages(root.__path__, f"{package}."):
        if found.name.endswith("__main__"):
            continue
        for each in vars(importlib.import_module(found.name)).values():
            if isinstance(each, type) and issubclass(each, BaseException) and each.__module__ == found.name:
                yield each


def drawn_tree() -> dict[str, str]:
    """From the docstring: each exception and the one that it is drawn below."""
    parents, above = {}, ["Exception"]
    for indent, name in re.findall(r"^( *)([A-Z]\w+)(?:  +.*)?$", errors.__doc__ or "", re.MULTILINE):
        depth = len(indent) // 4 + 1
        above[depth:] = [name]
        parents[name] = above[depth - 1]
    return parents


def test_every_exception_is_in_the_tree_and_drawn_where_it_is() -> None:
    found = {each for package in (relay, actors, cli) for each in exceptions_of(package.__name__)}
    assert {each.__module__ for each in found} == {"relay.errors"}
    assert {each.__name__: each.__bases__[0].__name__ for each in found} == drawn_tree()


@pytest.mark.parametrize("kind", sorted(exceptions_of("relay"), key=lambda kind: kind.__name__))
def test_every_exception_crosses_an_actor_boundary_whole(kind: type[Exception]) -> None:
    error = kind(*ARGUMENTS.get(kind, ("what went wrong",)))
    crossed = pickle.loads(pickle.dumps(error))
    assert (type(crossed), str(crossed)) == (kind, str(error))
    assert {name: str(value) for name, value in vars(crossed).items()} == {
        name: str(value) for name, value in vars(error).items()
    }
