"""Every exception that Sluice raises.

SluiceError
    ConfigError                 the configuration is wrong; the text names the YAML path and the remedy
    InvalidValueError           a value of the configuration is refused inside pydantic
    UsageError                  the command line is wrong
    ClusterError                an actor did not answer in time
    BusError                    NATS refused, timed out or went away
        RefusedError            JetStream's API answered with an error
    LinkError                   the connection between a stream actor and its publisher failed
    FencedError                 a later incarnation of the same stream has the right to store
    FeedError                   the exchange refused, closed or broke the protocol
        HandshakeRefusedError   it answered a handshake with an HTTP status
    RestError                   the exchange's REST API did not answer, or limits requests
    RestRefusedError            the exchange's REST API will never answer this request
    UnfitAnswerError            the exchange's REST API answered something unexpected
    JournalError                the journal's disk refused a write or a read
    DamagedBatchError           bytes are not a whole, intact batch
    MalformedError              a message in NATS breaks the contract of the envelope
    UnreadableEntryError        a message in NATS is no entry of the loss ledger
SteppedDown                     no error: ends an instance that another one replaces

The tree says what failed and not whether a retry may help, because that depends on who asks: each retry loop
owns one resource and catches the errors of that resource alone. A link is opened again after a LinkError and
the journal written again after a JournalError, both for as long as it takes; a publisher connects again after
a BusError, which ends a command that reads NATS. No loop retries after FencedError or SteppedDown: they end
the process.

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
        remedy = f"; {self.remedy}" if self.remedy else ""
        return f"{where}{self.problem}{remedy}"


class InvalidValueError(SluiceError, ValueError):
    """Carries a ConfigError without a path through pydantic, which knows the path and asks for ValueError."""

    def __init__(self, error: ConfigError) -> None:
        super().__init__(error)
        self.error = error

    def __str__(self) -> str:
        return str(self.error)


class UsageError(SluiceError):
    """A command was given arguments that it cannot use."""


class BusError(SluiceError):
    """NATS refused, timed out or went away."""


class LinkError(SluiceError):
    """The connection between a stream actor and its publisher failed or broke its protocol."""


class FeedError(SluiceError):
    """The exchange refused the connection, closed it or broke the protocol.

    `retry_after_s` is what it asked for (HTTP 418 and 429), None when it asked for nothing.
    """

    def __init__(self, reason: str, retry_after_s: float | None = None) -> None:
        super().__init__(reason, retry_after_s)
        self.reason = reason
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return self.reason


class HandshakeRefusedError(FeedError):
    """The exchange answered a handshake with an HTTP status: reachable, but accepting no connection."""


class RestError(SluiceError):
    """REST did not answer. `limited`: it refused for too many requests (HTTP 418 or 429); `retry_after_s` is
    when it may be asked again, None if it did not say."""

    def __init__(self, reason: str, retry_after_s: float | None = None, limited: bool = False) -> None:
        super().__init__(reason, retry_after_s, limited)
        self.reason = reason
        self.retry_after_s = retry_after_s
        self.limited = limited

    def __str__(self) -> str:
        return self.reason


class ClusterError(SluiceError):
    """An actor or the cluster did not answer in time."""


class FencedError(SluiceError):
    """`epoch` belongs to a later incarnation of `stream`, which alone may store its events now."""

    def __init__(self, stream: str, epoch: int) -> None:
        super().__init__(stream, epoch)
        self.stream = stream
        self.epoch = epoch

    def __str__(self) -> str:
        return f"{self.stream} is served by a later incarnation, epoch {self.epoch}"


class RestRefusedError(SluiceError):
    """REST refused for good: no key, no such symbol, no such call."""


class JournalError(SluiceError):
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
    """REST answered something else than rows of trades with rising ids."""


class UnreadableEntryError(SluiceError):
    """The bytes are no entry of the loss ledger."""


class RefusedError(BusError):
    """JetStream's API refused `what`; `code` is its err_code."""

    def __init__(self, what: str, code: int, text: str) -> None:
        super().__init__(what, code, text)
        self.what = what
        self.code = code
        self.text = text

    def __str__(self) -> str:
        return f"{self.what}: {self.text} ({self.code})"


class SteppedDown(Exception):
    """Planned control flow: the active instance of `stream` lost its exchange connection and makes room for
    the standby instance, which still has one. Raised through the task group of the instance, it ends the
    process, which comes back as standby."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.stream = stream

    def __str__(self) -> str:
        return f"{self.stream} goes on with its other instance"
