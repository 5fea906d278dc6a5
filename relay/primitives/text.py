"""Numbers and times as short text; pure."""

from __future__ import annotations

from datetime import UTC, datetime


def clip(text: str, width: int) -> str:
    """One printable line of at most `width` characters: what other machines sent may hold control codes."""
    clean = "".join(c if c.isprintable() else " " for c in text)
    return clean if len(clean) <= width else clean[: max(0, width - 1)] + "…"


def count(value: int) -> str:
    """At most seven characters for values below 10**12."""
    if abs(value) < 1_000_000:
        return f"{value:,}"
    return f"{value / 1e6:.2f}M" if abs(value) < 1_000_000_000 else f"{value / 1e9:.2f}G"


def rate(value: float) -> str:
    return f"{value:.1f}" if value < 10 else count(round(value))


def millis(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def age(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h"


def utc(ns: int) -> str:
    """ISO 8601 with milliseconds; `ns` is Unix time, here and below."""
    return datetime.fromtimestamp(ns / 1e9, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def utc_to_the_second(ns: int) -> str:
    return f"{datetime.fromtimestamp(ns / 1e9, UTC):%Y-%m-%d %H:%M:%S}Z"


def utc_time_of_day(ns: int) -> str:
    return f"{datetime.fromtimestamp(ns / 1e9, UTC):%H:%M:%S.%f}"[:-3] + "Z"


def quoted(value: object, limit: int = 80) -> str:
    """A value as error messages quote it: spelt as in YAML, printable, and not longer than a line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = repr(value[: limit + 1] if isinstance(value, str) else value)
    return text if len(text) <= limit else f"{text[:limit]}…"
