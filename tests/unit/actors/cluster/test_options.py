"""What every actor is made with, as far as the configuration decides."""

from __future__ import annotations

import inspect

import pytest

from actors.cluster.options import ActorClasses, actor_options, class_at
from relay.ports import Room


class NoFacts:
    def load(self, fact: str) -> bytes | None:
        return None


def test_an_actor_is_kept_to_the_nodes_that_its_room_names() -> None:
    options = actor_options("sluice", "one", Room(0.5, "streams"), NoFacts())
    assert (options["num_cpus"], options["label_selector"]) == (0.5, {"sluice": "streams"})


def test_an_actor_with_room_anywhere_names_no_nodes() -> None:
    assert "label_selector" not in actor_options("sluice", "one", Room(0.5), NoFacts())


@pytest.mark.parametrize("role", ["stream", "publisher", "controller"])
def test_no_method_of_an_actor_is_a_coroutine(role: str) -> None:
    """One is enough for Ray to run all of them on one event loop: a drain would hold up every look."""
    assert inspect.getmembers(class_at(getattr(ActorClasses(), role)), inspect.iscoroutinefunction) == []


def test_a_leg_is_kept_to_its_node_and_to_its_label_once_that_is_gone() -> None:
    options = actor_options("sluice", "one", Room(0.5, "streams", "ab12"), NoFacts())
    assert options["label_selector"] == {"sluice": "streams", "ray.io/node-id": "ab12"}
    assert options["fallback_strategy"] == [{"label_selector": {"sluice": "streams"}}]


def test_a_leg_without_a_label_goes_anywhere_once_its_node_is_gone() -> None:
    options = actor_options("sluice", "one", Room(0.5, None, "ab12"), NoFacts())
    assert options["label_selector"] == {"ray.io/node-id": "ab12"}
    assert options["fallback_strategy"] == [{"label_selector": {"ray.io/node-id": "!ab12"}}]
