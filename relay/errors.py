"""Every exception that Sluice raises.

SluiceError
    ConfigError             the configuration is wrong; text names the YAML path and the remedy
    UsageError              the command line is wrong
    TransientError          trying again later may work
        BusError            NATS refused, timed out or went away
        LinkError           the connection between a stream actor and its publisher failed
        FeedError           the exchange refused, closed or broke the protocol
            TurnedAwayError     it answered a handshake with an HTTP status instead
        RestError           the exchange's REST side did not answer, or asked for patience
        ClusterError        an actor did not answer in time
    FatalError              trying again cannot work
        FencedError         a later incarnation of the same stream has taken over
        SteppedAsideError   the other leg of the same stream takes over
        JournalError        the journal's disk refused a write or a read
        RestRefusedError    the exchange's REST side will never answer this

Exceptions may cross an actor boundary, so each passes all its arguments to `super().__init__`.
"""

from __future__ import annotations


class SluiceError(Exception):
    """Root of the tree; `str()` of it is one sentence, with a remedy where there is one."""


class ConfigError(SluiceError):
    """`path` is the YAML path (`shards[3].stream`), empty for the whole file."""

    def __init__(self, path: str, problem: str, remedy: str = "") -> None:
        super().__init__(path, problem, remedy)
        self.path = path
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        where = f"{self.path}: " if self.path else ""
        cure = f"; {self.remedy}" if self.remedy else ""
        return f"{where}{self.problem}{cure}"


class UsageError(SluiceError):
    """A command was given something that it cannot take."""


class TransientError(SluiceError):
    """Trying again later may work."""


class BusError(TransientError):
    """NATS refused, timed out or went away."""


class LinkError(TransientError):
    """The connection between a stream actor and its publisher failed or broke its protocol."""


class FeedError(TransientError):
    """The exchange refused the connection, closed it or broke the protocol.

    `retry_after_s` is what it asked for (HTTP 418 and 429), None when it asked for nothing.
    """

    def __init__(self, reason: str, retry_after_s: float | None = None) -> None:
        super().__init__(reason, retry_after_s)
        self.reason = reason
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return self.reason


class TurnedAwayError(FeedError):
    """The exchange answered a handshake with an HTTP status: it is there, and takes nobody now."""


class RestError(TransientError):
    """REST did not answer. `limited` means that too much was asked; `retry_after_s` may be None."""

    def __init__(self, reason: str, retry_after_s: float | None = None, limited: bool = False) -> None:
        super().__init__(reason, retry_after_s, limited)
        self.reason = reason
        self.retry_after_s = retry_after_s
        self.limited = limited

    def __str__(self) -> str:
        return self.reason


class ClusterError(TransientError):
    """An actor or the cluster did not answer in time."""


class FatalError(SluiceError):
    """Trying again cannot work."""


class FencedError(FatalError):
    """`epoch` belongs to a later incarnation of `stream`, which has taken over."""

    def __init__(self, stream: str, epoch: int) -> None:
        super().__init__(stream, epoch)
        self.stream = stream
        self.epoch = epoch

    def __str__(self) -> str:
        return f"{self.stream} is served by a later incarnation, epoch {self.epoch}"


class SteppedDown(FatalError):
    """A hot leg of `stream` has lost its socket and leaves to the warm one, which has its own."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.stream = stream

    def __str__(self) -> str:
        return f"{self.stream} goes on with its other leg"


class RestRefusedError(FatalError):
    """REST refused for good: no key, no such symbol, no such call."""


class JournalError(FatalError):
    """The journal's disk refused a write or a read."""


class MalformedError(SluiceError):
    """A message that breaks the contract."""


class DamagedBatchError(SluiceError):
    """The bytes at `at` are not a whole, intact batch."""

    def __init__(self, at: int, reason: str) -> None:
        super().__init__(at, reason)
        self.at = at
        self.reason = reason

    def __str__(self) -> str:
        return f"batch at byte {self.at} is damaged: {self.reason}"


class UnfitAnswerError(SluiceError):
    """REST answered with something else than rising rows of trades."""


class UnreadableEntryError(SluiceError):
    """The bytes are no entry of the ledger."""


class RefusedError(BusError):
    """JetStream's API refused; `code` is its err_code."""

    def __init__(self, what: str, code: int, text: str) -> None:
        super().__init__(what, code, text)
        self.what = what
        self.code = code
        self.text = text

    def __str__(self) -> str:
        return f"{self.what}: {self.text} ({self.code})"
