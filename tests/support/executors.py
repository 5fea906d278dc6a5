"""Executors for tests."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

from relay.errors import SluiceError


class AtOnce(Executor):
    """Runs what it is given before `submit` returns."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **more: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(function(*arguments, **more))
        except SluiceError as error:
            future.set_exception(error)
        return future


class OnDemand(Executor):
    """Keeps what it is given until `run`."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Future[Any], Callable[[], Any]]] = []

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **more: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.waiting.append((future, lambda: function(*arguments, **more)))
        return future

    def run(self) -> None:
        future, function = self.waiting.pop(0)
        try:
            future.set_result(function())
        except SluiceError as error:
            future.set_exception(error)
