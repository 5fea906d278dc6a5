"""What operators may change on a running relay: checked, and described for the list of changes. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from relay.control.store import CHANGES_KEPT
from relay.errors import UsageError
from relay.model.stats import Change, StoppedStream
from relay.primitives.text import clip

MAX_WHO_CHARS = 80
MAX_WHAT_CHARS = 300
# Of the differences between two configurations; the log has all of them.
MAX_DIFFERENCES = 4


def display_name(who: str) -> str:
    """A name fit to be shown and stored: one printable line, never empty."""
    return clip(who, MAX_WHO_CHARS).strip() or "somebody"


def with_change(changes: Sequence[Change], who: str, what: str, at_ns: int) -> tuple[Change, ...]:
    """With one more at the end, limited to CHANGES_KEPT."""
    change = Change(at_ns=at_ns, who=display_name(who), what=clip(what, MAX_WHAT_CHARS))
    return (*changes, change)[-CHANGES_KEPT:]


def apply_summary(differences: Sequence[str]) -> str:
    """One sentence for the list of changes."""
    more = len(differences) - MAX_DIFFERENCES
    rest = f"; and {more} more" if more > 0 else ""
    return f"configuration applied: {'; '.join(differences[:MAX_DIFFERENCES])}{rest}"


def resolve_stream(text: str, keys: Collection[str]) -> str:
    """The one of `keys` that `text` names, with or without its venue. Raises UsageError."""
    found = [key for key in keys if text in (key, key.partition(":")[2])]
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f"{text} is a stream of more than one venue; write {' or '.join(found)}")
    raise UsageError(f"there is no stream {clip(text, 60)}; there are {_listed(sorted(keys))}")


def publisher_name(text: str, names: Collection[str]) -> str:
    if text in names:
        return text
    raise UsageError(f"there is no publisher {clip(text, 60)}; there are {_listed(sorted(names))}")


def still_stopped(
    stopped: Mapping[str, StoppedStream], unchanged: Collection[str]
) -> dict[str, StoppedStream]:
    """After a new configuration, only streams whose settings did not change stay stopped."""
    return {key: one for key, one in stopped.items() if key in unchanged}


def _listed(names: Sequence[str]) -> str:
    more = len(names) - 20
    return (", ".join(names[:20]) or "none") + (f" and {more} more" if more > 0 else "")
