"""Where to connect when the exchange's name cannot be resolved: the address that worked last; pure."""

from __future__ import annotations


class AddressFallback:
    """Of one stream. After an attempt by name that reached nobody, the next attempt is at the last address
    that worked, and the one after that by name again, as the exchange may have moved. So a stream
    survives name servers that fail or answer wrongly.
    """

    def __init__(self) -> None:
        self._known = ""
        self._by_name_failed = False

    @property
    def next_address(self) -> str | None:
        """An IP address; None means by name."""
        return self._known if self._by_name_failed else None

    def reached(self, address: str) -> None:
        """The attempt reached an exchange; `address` is empty if its address could not be read."""
        self._known = address or self._known
        self._by_name_failed = False

    def failed(self, *, answered: bool) -> None:
        """The attempt failed; `answered` says whether the exchange was reached and refused it."""
        self._by_name_failed = bool(self._known) and not answered and not self._by_name_failed
