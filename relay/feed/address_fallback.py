"""Where to connect when the exchange's name leads nowhere: to the address that it had before; pure."""

from __future__ import annotations


class AddressFallback:
    """Of one stream. When nobody answers by name the next attempt is at the last address that worked, and the
    one after that by name again, as the exchange may have moved: name servers that fail or lie end no stream.
    """

    def __init__(self) -> None:
        self._known = ""
        self._by_name_failed = False

    @property
    def next_address(self) -> str | None:
        """None means by name."""
        return self._known if self._by_name_failed else None

    def reached(self, address: str) -> None:
        """Where `next` led is an exchange; `address` is empty if nobody knows where that was."""
        self._known = address or self._known
        self._by_name_failed = False

    def failed(self, *, answered: bool) -> None:
        """The attempt led nowhere, though an exchange may have `answered` it."""
        self._by_name_failed = bool(self._known) and not answered and not self._by_name_failed
