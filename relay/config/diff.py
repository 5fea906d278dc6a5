"""What differs between two configurations, as sentences for operators; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Any

from relay.config import Config, JetStreamConfig, NatsConfig, StreamSettings

_SECRETS = frozenset({"password", "token"})
# Compared per stream, where they take effect.
_PER_STREAM = frozenset({"shards", "exchange", "queue", "journal"})
# Settings that depend on how many other streams there are: when these change, a stream's actor keeps running
# with the old values.
_ELSEWHERE = {"streams", "rest_sharers"}


def differences(old: Config, new: Config) -> tuple[str, ...]:
    """Empty when both lead to the same relay, even if they are written differently."""
    return (*_general(old, new), *_streams(old, new))


def unchanged_streams(old: Config, new: Config) -> frozenset[str]:
    """The keys of the streams that both have with the same settings."""
    before = {one.spec.key: revision(one) for one in old.streams}
    return frozenset(one.spec.key for one in new.streams if before.get(one.spec.key) == revision(one))


def _general(old: Config, new: Config) -> Iterator[str]:
    before, after = (config.model_dump(mode="json", exclude=set(_PER_STREAM)) for config in (old, new))
    return _changed("", before, after)


def _changed(path: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    for name in {**before, **after}:
        was, now = before.get(name), after.get(name)
        where = f"{path}{name}"
        if was == now:
            continue
        if name in _SECRETS:
            yield f"{where} is another one"
        elif isinstance(was, Mapping) and isinstance(now, Mapping):
            yield from _changed(f"{where}.", was, now)
        else:
            yield f"{where}: {_shown(was)} is now {_shown(now)}"


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _streams(old: Config, new: Config) -> Iterator[str]:
    before = {one.spec.key: one for one in old.streams}
    after = {one.spec.key: one for one in new.streams}
    for key, settings in before.items():
        if key not in after:
            yield f"{settings.spec.name} is removed"
    for key, settings in after.items():
        if key not in before:
            yield f"{settings.spec.name} is added"
        else:
            was, now = (one.model_dump(mode="json", exclude=_ELSEWHERE) for one in (before[key], settings))
            yield from _changed(f"{settings.spec.name}: ", was, now)


def revision(settings: StreamSettings | NatsConfig) -> str:
    """A digest that changes exactly when an actor with these settings has to be replaced."""
    return sha256(settings.model_dump_json(exclude=_ELSEWHERE).encode()).hexdigest()[:16]


def publisher_revision(nats: NatsConfig) -> str:
    """As `revision`; the limits of the JetStream streams are left out, because the controller applies
    them.
    """
    return revision(nats.model_copy(update={"stream": JetStreamConfig()}))
