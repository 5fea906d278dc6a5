"""What can go wrong: each fault is a function of the scene that does it and says when it is over."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.simulation.disk import Fate
from tests.simulation.exchange_model import BOOK
from tests.simulation.nats_model import Stored

if TYPE_CHECKING:
    from tests.simulation.scene import Scene

Fault = Callable[["Scene"], None]


def kill_stream(scene: Scene) -> None:
    scene.a_stream().newest.process.kill()


def kill_standby_instance(scene: Scene) -> None:
    scene.a_stream().standby.process.kill()


def kill_both_instances(scene: Scene) -> None:
    stream = scene.a_stream()
    for one in (stream.newest, stream.standby):
        one.process.kill()


def stop_standby_instance(scene: Scene) -> None:
    scene.pause(scene.a_stream().standby.process, scene.dice.uniform(0.2, 6.0))


def cut_one_socket(scene: Scene) -> None:
    """Of one instance alone: the other one reads on."""
    stream = scene.a_stream()
    one = scene.dice.choice((stream.newest, stream.standby))
    scene.world.network.reset(one.process.name, "exchange")


def kill_stream_in_a_write(scene: Scene) -> None:
    fates = list(Fate)
    scene.disk.fate[scene.a_stream().newest.process.name] = scene.dice.choice(fates)


def kill_publisher(scene: Scene) -> None:
    scene.a_publisher().kill()


def kill_nats(scene: Scene) -> None:
    scene.stop_nats(scene.dice.uniform(0.1, 4.0))


def stop_stream(scene: Scene) -> None:
    process = scene.a_stream().newest.process
    scene.pause(process, scene.dice.uniform(0.2, 2.5))


def replace_a_stopped_stream(scene: Scene) -> None:
    """It wakes up while its successor works."""
    stream = scene.a_stream()
    scene.pause(stream.newest.process, scene.dice.uniform(2.0, 7.0))
    scene.after(scene.dice.uniform(0.5, 2.0), lambda: scene.relay.replace(stream))


def stop_publisher(scene: Scene) -> None:
    """For a while, or for good if there is another one."""
    process = scene.a_publisher()
    others = [other for other in scene.relay.publishers.values() if other is not process]
    if scene.dice.random() < 0.3 and not any(other.stopped for other in others):
        process.stop()
    else:
        scene.pause(process, scene.dice.uniform(0.3, 6.0))


def stop_nats(scene: Scene) -> None:
    scene.pause(scene.nats.process, scene.dice.uniform(0.3, 5.0))


def part_publisher_and_nats(scene: Scene) -> None:
    scene.part(scene.a_publisher().name, "nats", scene.dice.uniform(0.3, 6.0))


def lose_acknowledgements(scene: Scene) -> None:
    """NATS receives and stores; the publisher receives no answer, then the connection breaks."""
    name = scene.a_publisher().name
    scene.hold("nats", name, scene.dice.uniform(0.1, 4.0))
    if scene.dice.random() < 0.5:
        scene.after(scene.dice.uniform(0.05, 1.0), lambda: scene.world.network.reset(name, "nats"))


def part_stream_and_publisher(scene: Scene) -> None:
    stream = scene.a_stream().newest.process.name
    scene.part(stream, scene.a_publisher().name, scene.dice.uniform(0.3, 5.0))


def part_stream_and_exchange(scene: Scene) -> None:
    scene.part(scene.a_stream().newest.process.name, "exchange", scene.dice.uniform(0.3, 3.0))


def slow_link(scene: Scene) -> None:
    name, network = scene.a_publisher().name, scene.world.network
    pair = scene.dice.choice(((name, "nats"), ("nats", name)))
    network.slow(*pair, scene.dice.choice((3_000.0, 30_000.0)))
    scene.after(scene.dice.uniform(0.5, 5.0), lambda: network.slow(*pair, None))


def break_nats_connection(scene: Scene) -> None:
    scene.world.network.reset(scene.a_publisher().name, "nats")


def break_link(scene: Scene) -> None:
    stream = scene.a_stream().newest.process.name
    for name in sorted(scene.relay.publishers):
        scene.world.network.reset(stream, name)


def cut_by_exchange(scene: Scene) -> None:
    for stream in scene.relay.streams.values():
        if scene.dice.random() < 0.7:
            scene.world.network.reset(stream.newest.process.name, "exchange")


def gap_in_ids(scene: Scene) -> None:
    """Where there are none, nobody could notice."""
    market = scene.a_market()
    if market.name != BOOK:
        market.skip(scene.dice.randrange(1, 6))


def flood(scene: Scene) -> None:
    scene.exchange.send(scene.a_market(), scene.dice.randrange(20, 80))


def full_disk(scene: Scene) -> None:
    name = scene.a_stream().newest.process.name
    scene.disk.full.add(name)
    scene.after(scene.dice.uniform(0.5, 4.0), lambda: scene.disk.full.discard(name))


def refuse_some(scene: Scene) -> None:
    """JetStream has no room for some messages, now and then."""
    scene.nats.refuse = lambda subject: scene.dice.random() < 0.3

    def end() -> None:
        scene.nats.refuse = lambda subject: False

    scene.after(scene.dice.uniform(0.2, 2.0), end)


def forget_ids(scene: Scene) -> None:
    """The dedup window has passed."""
    streams: list[Stored] = list(scene.nats.streams.values())
    for stream in streams:
        stream.ids.clear()


def move(scene: Scene) -> None:
    scene.relay.move(scene.a_stream())


FAULTS: tuple[Fault, ...] = (
    kill_stream,
    kill_stream_in_a_write,
    kill_publisher,
    kill_nats,
    stop_stream,
    replace_a_stopped_stream,
    stop_publisher,
    stop_nats,
    part_publisher_and_nats,
    lose_acknowledgements,
    part_stream_and_publisher,
    part_stream_and_exchange,
    slow_link,
    break_nats_connection,
    break_link,
    cut_by_exchange,
    gap_in_ids,
    flood,
    full_disk,
    refuse_some,
    forget_ids,
    move,
)
# Streams with two instances know these as well.
PAIR_FAULTS: tuple[Fault, ...] = (
    *FAULTS,
    kill_standby_instance,
    kill_both_instances,
    stop_standby_instance,
    cut_one_socket,
)
# Of these, those that one instance makes good for the other.
ONE_INSTANCE_FAULTS: tuple[Fault, ...] = (
    kill_stream,
    kill_stream_in_a_write,
    kill_standby_instance,
    stop_stream,
    stop_standby_instance,
    replace_a_stopped_stream,
    part_stream_and_publisher,
    break_link,
    cut_one_socket,
)
