"""When a file has changed for good: pure; its owner reads it now and then and says what was there."""

from __future__ import annotations


class StableChangeDetector:
    """A content counts once two looks in a row found it, since an editor may be in the middle of writing.

    It may be anything that tells contents apart, such as a digest, or None while the file cannot be read.
    """

    def __init__(self, content: object) -> None:
        self._known = self._last = content

    def observe(self, content: object) -> bool:
        """Whether this is a new content to act on; true once for each, unless `forget` is called."""
        still = content == self._last
        self._last = content
        if not still or content == self._known:
            return False
        self._known = content
        return True

    def forget(self) -> None:
        """Acting on the content failed for reasons of its own: it counts again at the next look."""
        self._known = _NOTHING


_NOTHING = object()
