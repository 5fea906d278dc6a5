"""What operators are shown of a changed configuration."""

from __future__ import annotations

import pytest

from relay.config import JetStreamConfig, NatsConfig, parse_config
from relay.config.diff import differences, publisher_revision, revision

ENVIRON = {"HOME": "/home/somebody"}
STREAMS = "shards: [{stream: btcusdt@trade}, {stream: ethusdt@trade}]\n"


def parse(extra: str = "", streams: str = STREAMS):
    return parse_config(streams + extra, ENVIRON)


def test_the_same_relay_written_otherwise_has_no_differences():
    longer = "shards: [{stream: btcusdt@trade, venue: usdm}, {stream: ethusdt@trade}]\n"
    assert differences(parse(), parse("publishers: {scale: auto}\n", longer)) == ()


@pytest.mark.parametrize(
    ("extra", "sentences"),
    [
        ("publishers: {scale: 2}\n", ("publishers.scale: auto is now 2",)),
        ("nats: {servers: [nats://a:1, nats://b:2]}\n",
         ("nats.servers: nats://127.0.0.1:4222 is now nats://a:1, nats://b:2",)),
        ("nats: {creds_file: /etc/creds}\n", ("nats.creds_file: nothing is now /etc/creds",)),
        ("queue: {max_messages: 7}\n",
         ("btcusdt@trade: queue.max_messages: 5000 is now 7",
          "ethusdt@trade: queue.max_messages: 5000 is now 7")),
    ],
)  # fmt: skip
def test_each_difference_is_one_sentence(extra, sentences):
    assert differences(parse(), parse(extra)) == sentences


def test_streams_come_and_go():
    changed = parse(streams="shards: [{stream: ethusdt@trade}, {stream: solusdt@trade}]\n")
    assert differences(parse(), changed) == ("btcusdt@trade is removed", "solusdt@trade is added")


def test_one_streams_change_is_no_change_of_another():
    one = "shards: [{stream: btcusdt@trade, queue: {overflow: block}}, {stream: ethusdt@trade}]\n"
    before, after = parse().streams, parse(streams=one).streams
    assert revision(before[0]) != revision(after[0])
    assert revision(before[1]) == revision(after[1])


def test_a_stream_more_makes_none_of_the_others_anew():
    """Although the settings of each say how many streams share the connection budget."""
    more = parse("publishers: {max: 2}\n", STREAMS.replace("]", ", {stream: solusdt@trade}]"))
    assert [one.streams for one in more.streams] == [3, 3, 3]
    assert [revision(one) for one in more.streams[:2]] == [revision(one) for one in parse().streams]
    assert differences(parse(), more) == ("solusdt@trade is added",)


def test_secrets_are_not_told():
    text = "nats: {user: u, password: '${%s}'}\n" + STREAMS
    old, new = (parse_config(text % name, {**ENVIRON, name: "canary"}) for name in ("FIRST", "SECOND"))
    assert differences(old, new) == ("nats.password is another one",)


def test_limits_of_jetstream_make_no_publisher_anew_and_all_else_of_nats_does():
    nats = NatsConfig()
    limits = nats.model_copy(update={"stream": JetStreamConfig(max_bytes=5)})
    assert publisher_revision(limits) == publisher_revision(nats)
    assert publisher_revision(nats.model_copy(update={"headers": False})) != publisher_revision(nats)
