"""Rules between the keys of one section, and defaults that depend on other keys; pure."""

from __future__ import annotations

from relay.config.models import ExchangeConfig, NatsConfig, Profile, PublishersConfig, QueueConfig
from relay.errors import ConfigError
from relay.model.choices import Delivery

# Publishers and queue size of the old client's three profiles.
_PROFILES = {
    Profile.CONSERVATIVE: (3, 3000),
    Profile.RECOMMENDED: (5, 5000),
    Profile.AGGRESSIVE: (10, 10000),
}
# The most replicas of a stream that NATS allows.
_MAX_REPLICAS = 5
# Above this Binance bans the address.
_MAX_CONNECTS_PER_5MIN = 300


def check_exchange(exchange: ExchangeConfig) -> None:
    if exchange.url is None and exchange.connects_per_5min > _MAX_CONNECTS_PER_5MIN:
        problem = f"Binance bans an address after {_MAX_CONNECTS_PER_5MIN}, not {exchange.connects_per_5min}"
        raise ConfigError("exchange.connects_per_5min", problem, "write 150, or leave it out")


def check_nats(nats: NatsConfig) -> None:
    if not nats.servers:
        raise ConfigError("nats.servers", "the list is empty", "write nats://127.0.0.1:4222 or the like")
    if nats.delivery is Delivery.JETSTREAM and not nats.headers:
        remedy = "leave it out, or set nats.delivery to core"
        raise ConfigError("nats.headers", "JetStream tells repeats by a header, so false will not do", remedy)
    if nats.stream.duplicate_window_s > nats.stream.max_age_s:
        problem = f"{nats.stream.duplicate_window_s:g} s is longer than nats.stream.max_age_s"
        raise ConfigError("nats.stream.duplicate_window_s", problem, "write a shorter one")
    if nats.stream.replicas > _MAX_REPLICAS:
        problem = f"{nats.stream.replicas} copies are more than NATS keeps"
        raise ConfigError("nats.stream.replicas", problem, "write 1, 3 or 5")
    _check_login(nats)


def _check_login(nats: NatsConfig) -> None:
    ways = ("password", "password_file", "token", "token_file", "creds_file", "nkey_file")
    given = [way for way in ways if getattr(nats, way) is not None]
    if len(given) > 1:
        raise ConfigError(
            f"nats.{given[1]}", f"nats.{given[0]} is another way to log in", "keep one of the two"
        )
    by_password = bool(given) and given[0].startswith("password")
    if by_password and not nats.user:
        raise ConfigError("nats.user", "it is missing beside the password", "add it")
    if nats.user and not by_password:
        raise ConfigError("nats.user", "a user needs a password", "add nats.password_file")


def queue_with_defaults(queue: QueueConfig, profile: Profile | None) -> QueueConfig:
    if profile is None or "max_messages" in queue.model_fields_set:
        return queue
    return queue.model_copy(update={"max_messages": _PROFILES[profile][1]})


def publishers_with_defaults(
    publishers: PublishersConfig, profile: Profile | None, streams: int
) -> PublishersConfig:
    """Keys that are given count or are refused; the others get defaults that fit them and the number
    of streams.
    """
    given = publishers.model_fields_set
    for key in sorted(given):
        _check_against_streams(key, getattr(publishers, key), streams)
    wanted = _PROFILES[profile][0] if profile else publishers.max
    scale = publishers.scale
    fixed = scale if isinstance(scale, int) else 1
    most = publishers.max if "max" in given else min(max(wanted, publishers.min, fixed), streams)
    if profile and "scale" not in given:
        scale = min(max(wanted, publishers.min), most)
    complete = publishers.model_copy(update={"max": most, "scale": scale})
    _check_bounds(complete)
    return complete


def _check_against_streams(key: str, number: int | str, streams: int) -> None:
    if isinstance(number, int) and number > streams:
        problem = f"{number} publishers are more than the streams, {streams}"
        raise ConfigError(
            f"publishers.{key}", problem, f"write at most {streams}: a stream uses one at a time"
        )


def _check_bounds(publishers: PublishersConfig) -> None:
    low, high, scale = publishers.min, publishers.max, publishers.scale
    if low > high:
        problem = f"{low} is more than publishers.max, {high}"
        raise ConfigError("publishers.min", problem, f"write at most {high}, or raise publishers.max")
    if isinstance(scale, int) and not low <= scale <= high:
        problem = f"{scale} is not between publishers.min, {low}, and publishers.max, {high}"
        raise ConfigError("publishers.scale", problem, "write a number between them, or change them")
