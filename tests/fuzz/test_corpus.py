"""What fuzzing has found so far stays decided: every input of the corpus passes its target."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.adapters.websocket_frames import FeedProtocol
from relay.delivery.link_codec import MessageDecoder
from relay.journal import files
from relay.journal.segments import Segment, SegmentChunk, read_batches
from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).parents[1] / "fuzz" / "corpus"


def replay(target: str) -> None:
    inputs = sorted((CORPUS / target).iterdir())
    assert inputs
    for path in [*inputs, Path("/dev/null")]:
        TARGETS[target](path.read_bytes())


@pytest.mark.parametrize("target", TARGETS)
def test_every_input_of_the_corpus_passes(target: str) -> None:
    replay(target)


def test_a_feed_that_loses_a_frame_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    receive = FeedProtocol.receive

    def lossy(self: FeedProtocol, data: bytes, now: float) -> list[bytes]:
        return receive(self, data, now)[:1]

    monkeypatch.setattr(FeedProtocol, "receive", lossy)
    with pytest.raises(AssertionError):
        replay("frames")


def test_a_link_that_forgets_what_was_cut_off_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    feed = MessageDecoder.feed

    def forgetful(self: MessageDecoder, data: bytes) -> Iterator[tuple[int, bytes]]:
        yield from feed(self, data)
        self._rest.clear()

    monkeypatch.setattr(MessageDecoder, "feed", forgetful)
    with pytest.raises(AssertionError):
        replay("batches")


def test_a_journal_that_reads_one_batch_too_few_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def short(data: bytes, segment: Segment, reached: int, after: int, max_bytes: int) -> SegmentChunk:
        taken = read_batches(data, segment, reached, after, max_bytes)
        return taken._replace(batches=taken.batches[1:])

    monkeypatch.setattr(files, "read_batches", short)
    with pytest.raises(AssertionError):
        replay("journal")
