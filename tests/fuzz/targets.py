"""What fuzzing runs: each target takes any bytes and fails by an exception that its decoder must not raise.

A decoder is held against a second opinion wherever there is one: the protocol library alone, the same bytes
cut elsewhere, or the same records encoded again.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from relay.adapters.websocket_frames import MAX_FRAME_BYTES, FeedProtocol
from relay.binance.streams import Venue, parse_stream
from relay.config import parse_config
from relay.delivery import link_codec
from relay.delivery.window import SendWindow
from relay.errors import ConfigError, DamagedBatchError, LinkError
from relay.intake.intake import Intake
from relay.journal.journal import Journal
from relay.journal.recovery import recovery_of, survey
from relay.journal.segments import NO_LIMIT, DamagedRange, Segment, read_batches, scan
from relay.model.choices import Overflow
from relay.model.record_batch import decode, encode, head
from relay.standby.peer_status import encode_status, read_instance_id, read_status
from tests.support.records import read_records

SECRET, NONCE = b"a secret of the fuzzers", bytes(link_codec.NONCE_BYTES)
URL = "ws://exchange.test/ws/btcusdt@trade"
USDM = ("btcusdt@trade", "btcusdt@depth@100ms", "btcusdt@kline_1m", "!ticker@arr", "btcusdt@bookTicker")
STREAMS = [parse_stream(Venue.USDM, name) for name in USDM]
STREAMS.append(parse_stream(Venue.SPOT, "btcusdt@depth20@100ms"))
EPOCH = 7
JOURNAL_BYTES = 1 << 20


def frames(data: bytes) -> None:
    """What a socket of the exchange says after the handshake: the first bytes tell where reads end."""
    cuts, data = data[:4], data[4:]
    expected = _payloads_of_library(data)
    assert _payloads_of_feed([data]) == expected
    assert _payloads_of_feed(_pieces(data, cuts)) == expected


def payloads(data: bytes) -> None:
    """What frames of one stream hold, a line for each: the first byte tells the stream."""
    spec = STREAMS[data[0] % len(STREAMS)] if data else STREAMS[0]
    lines = data[1:].split(b"\n")
    window = SendWindow(max_messages=1000, max_bytes=1 << 24, overflow=Overflow.SPILL)
    intake = Intake(spec, window, epoch=EPOCH)
    taken = intake.accept(lines, 1)
    events = [record for record in read_records(taken.journal) if record.kind == 0]
    books = window.counts
    assert [record.seq for record in events] == list(range(1, taken.accepted + 1))
    assert all(record.payload in lines for record in events)
    assert books.received == taken.accepted + books.rejected == window.queued + books.rejected
    assert books.received + books.repeated <= len(lines)


def batches(data: bytes) -> None:
    """What either end of a link may hear: the first bytes tell where reads end."""
    cuts, data = data[:4], data[4:]
    whole = _messages([data])
    assert _messages(_pieces(data, cuts)) == whole
    for kind, body in whole:
        _read_message(kind, body)


def journal(data: bytes) -> None:
    """What a journal may find in its folder: two segments, the second from a third of the bytes on."""
    third = len(data) // 3
    _scan_segment(data)
    with tempfile.TemporaryDirectory(dir=_memory()) as folder:
        directory = Path(folder)
        (directory / Segment(EPOCH - 1, 1, EPOCH - 1).name).write_bytes(data[:third])
        (directory / Segment(EPOCH, 1 + data[0] if data else 1, EPOCH).name).write_bytes(data[third:])
        (directory / f"{EPOCH:020}.cursor").write_bytes(data[:24])
        _use_journal(directory)


def configuration(data: bytes) -> None:
    """A file, as text; what is no UTF-8 is refused earlier."""
    text = data.decode("utf-8", errors="replace")
    try:
        config = parse_config(text, {"NAME": "value"})
    except ConfigError as error:
        assert error.problem and error.remedy and str(error).isprintable()
    else:
        assert config.streams
        assert all(one.subject and one.url for one in config.streams)


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target for target in (frames, payloads, batches, journal, configuration)
}


def _pieces(data: bytes, cuts: bytes) -> Iterator[bytes]:
    """`data` in pieces as long as the bytes of `cuts` say, over and over."""
    at = 0
    for size in itertools.cycle(cuts or b"\xff"):
        if at >= len(data):
            return
        yield data[at : at + size + 1]
        at += size + 1


def _payloads_of_feed(pieces: Iterator[bytes] | list[bytes]) -> list[bytes]:
    protocol = FeedProtocol(URL)
    protocol.send_handshake()
    found = protocol.receive(_response_to(protocol.data_to_send()), now=0.0)
    for number, piece in enumerate(pieces):
        if protocol.failed:
            break
        found += protocol.receive(piece, now=float(number))
    return found


def _payloads_of_library(data: bytes) -> list[bytes]:
    protocol = ClientProtocol(parse_uri(URL), max_size=MAX_FRAME_BYTES)
    protocol.send_request(protocol.connect())
    protocol.receive_data(_response_to(protocol.data_to_send()))
    protocol.receive_data(data)
    found, parts = [], []
    for event in protocol.events_received():
        if isinstance(event, Frame) and event.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            parts.append(bytes(event.data))
            if event.fin:
                found.append(b"".join(parts))
                parts = []
    return found


def _response_to(request: list[bytes]) -> bytes:
    server = ServerProtocol()
    server.receive_data(b"".join(request))
    (opening,) = server.events_received()
    assert isinstance(opening, Request)
    server.send_response(server.accept(opening))
    return b"".join(server.data_to_send())


def _messages(pieces: Iterator[bytes] | list[bytes]) -> list[tuple[int, bytes]]:
    """Up to the first that is over the limit."""
    splitter = link_codec.MessageDecoder(link_codec.MAX_HELLO_BYTES)
    found = []
    try:
        for piece in pieces:
            for message in splitter.feed(piece):
                found.append(message)  # noqa: PERF402 - what came before an error counts
    except LinkError:
        pass
    return found


def _read_message(kind: int, body: bytes) -> None:
    try:
        if kind in (link_codec.HELLO, link_codec.JOIN):
            link_codec.read_hello(body, SECRET, NONCE)
        elif kind in (link_codec.STATUS, link_codec.PEER_STATUS):
            word = read_status(body)
            assert read_status(encode_status(word)) == word
        elif kind == link_codec.PEER_LEFT:
            read_instance_id(body)
        elif kind == link_codec.BATCHES:
            session, skip, batches = link_codec.read_batches(body)
            again = b"".join(batch.encoded for batch in batches)
            assert link_codec.batches(session, skip, again)[5 + 8 :] == _with_checksums(body[8:])
        else:
            link_codec.read_down(kind, body)
    except (LinkError, DamagedBatchError):
        return


def _with_checksums(encoded: bytes) -> bytes:
    """Nobody looks at them on the link."""
    at, found = 0, []
    while at < len(encoded):
        batch, at = decode(encoded, at, check=False)
        found.append(batch.encoded)
    return b"".join(found)


def _scan_segment(data: bytes) -> None:
    """Records and gaps fill the bytes without a hole, and reading gives exactly the records."""
    at, offset, records, expected = 0, 0, 0, []
    for item in scan(data, EPOCH, 0, NO_LIMIT):
        assert item.start == at < item.end <= len(data)
        if not isinstance(item, DamagedRange):
            assert item.last >= item.first > offset
            offset = item.last
            records += item.last - item.first + 1
            expected.append(data[item.start : item.end])
        elif item.next_offset is not None:
            assert item.next_offset > offset
        at = item.end
    segment = Segment(EPOCH, 1, EPOCH)
    found = survey(segment, data, 0, NO_LIMIT)
    assert found.records == records and segment.last_offset == offset
    assert recovery_of([found], 0, EPOCH).bytes == sum(map(len, expected))
    assert _taken(data, segment) == expected


def _taken(data: bytes, segment: Segment) -> list[bytes]:
    found: list[bytes] = []
    at = reached = 0
    while at < segment.end:
        part = read_batches(data[at : segment.end], segment, reached, 0, 100)
        found += part.batches
        reached = part.reached
        if not part.used and part.damage is None:
            break
        at += part.used or part.damage.end
    return found


def _use_journal(directory: Path) -> None:
    """However damaged, it opens, tells what it has, and keeps what is added."""
    kept = Journal(directory, epoch=EPOCH + 1, max_bytes=JOURNAL_BYTES)
    found = _read_all(kept)
    held = (head(one) for one in found)
    records = sum(one.records - max(0, kept.acknowledged + 1 - one.offset) for one in held)
    assert records == kept.recovery.records
    # Only a forged offset at the end of all offsets leaves none to add behind.
    if kept.last_offset < NO_LIMIT - 1:
        added = encode(0, kept.last_offset + 1, EPOCH + 1, 1, 1, [1], [b"added"])
        kept.append(added, kept.last_offset + 1)
        assert _read_all(kept) == [*found, added]
    kept.close()


def _read_all(kept: Journal) -> list[bytes]:
    found: list[bytes] = []
    after = kept.acknowledged
    while batches := kept.read_after(after, 100):
        found += batches
        last = head(batches[-1])
        after = last.offset + last.records - 1
    return found


def _memory() -> str | None:
    """A folder in memory, where there is one: a disk would be most of the time."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None
