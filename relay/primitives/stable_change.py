"""Whether a file has changed and the change is complete: pure; the caller reads the file at intervals."""

from __future__ import annotations


class StableChangeDetector:
    """A new content counts when two reads in a row found it, since an editor may be in the middle of writing.

    `content` is anything that distinguishes contents, such as a digest, or None while the file is unreadable.
    """

    def __init__(self, content: object) -> None:
        self._known = self._last = content

    def observe(self, content: object) -> bool:
        """Whether this is a new content to act on: true once for each, unless `forget` is called."""
        still = content == self._last
        self._last = content
        if not still or content == self._known:
            return False
        self._known = content
        return True

    def forget(self) -> None:
        """Acting on the content failed for another reason: it counts as new at the next read."""
        self._known = _NOTHING


_NOTHING = object()
