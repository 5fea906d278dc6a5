"""Runs the auditing consumer in a thread with its own event loop, while a command waits and draws."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

import uvloop

from relay.adapters.nats.consumer import AuditConsumer, Source, connector
from relay.adapters.nats.provisioning import SIDE_NAME
from relay.audit.audit import LEDGER_PREFIX, Audit
from relay.config import Config
from relay.model.choices import Delivery

T = TypeVar("T")


def sources(config: Config) -> list[Source]:
    """What to read: each JetStream stream, or with core NATS each subject once; and repairs and the
    loss ledger.
    """
    if config.nats.delivery is Delivery.CORE:
        template = config.nats.subject
        healable = [one.spec for one in config.streams if one.spec.healable]
        subjects = dict.fromkeys(one.subject for one in config.streams)
        repairs = dict.fromkeys(spec.repair_subject(template) for spec in healable)
        side = [f"{LEDGER_PREFIX}>", *repairs]
        return [*(Source("", each) for each in subjects), *(Source("", each, side=True) for each in side)]
    stored = [Source(one.spec.jetstream_name, one.stored_subject) for one in config.streams]
    return [*stored, Source(SIDE_NAME, "", side=True)]


class BackgroundAudit:
    """Reads while its context is open. `audit` may be read meanwhile, and is complete afterwards."""

    def __init__(self, config: Config, audit: Audit, *, from_start: bool) -> None:
        self.audit = audit
        self._consumer = AuditConsumer(connector(config.nats), sources(config), audit, from_start=from_start)
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="audit", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self._call(self._consumer.__aenter__())
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call(self._consumer.__aexit__(kind, error, trace))
        self._end()

    def caught_up(self, deadline_s: float) -> bool:
        return self._call(self._consumer.caught_up(deadline_s))

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _end(self) -> None:
        self._call(_cancel_others())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _cancel_others() -> None:
    """The consumers' watchers, which nats-py leaves running for half a minute after it is closed."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
