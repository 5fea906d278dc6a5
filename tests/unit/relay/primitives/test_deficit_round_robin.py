"""Whoever has something to send waits for at most one turn of each other one."""

from collections import deque

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from relay.primitives.deficit_round_robin import DeficitRoundRobin

QUANTUM = 1000
LARGEST = 3000
sizes = st.integers(min_value=1, max_value=LARGEST)


def serve(scheduler: DeficitRoundRobin[str], queues: dict[str, deque[int]]) -> tuple[str, int]:
    key, budget = scheduler.turn()
    used = 0
    while queues[key] and used + queues[key][0] <= budget:
        used += queues[key].popleft()
    scheduler.end_turn(used, more=bool(queues[key]))
    return key, used


def test_it_is_empty_at_first() -> None:
    assert not DeficitRoundRobin[str](QUANTUM)


def test_keys_take_turns() -> None:
    scheduler = DeficitRoundRobin[str](QUANTUM)
    queues = {name: deque([600] * 4) for name in "abc"}
    for name in "abc":
        scheduler.add(name)
    assert [serve(scheduler, queues)[0] for _ in range(6)] == ["a", "b", "c", "a", "b", "c"]


def test_adding_twice_gives_no_second_turn() -> None:
    scheduler = DeficitRoundRobin[str](QUANTUM)
    queues = {"a": deque([1] * 5000), "b": deque([1] * 5000)}
    for name in "aab":
        scheduler.add(name)
    assert [serve(scheduler, queues)[0] for _ in range(4)] == ["a", "b", "a", "b"]


def test_an_item_larger_than_a_quantum_goes_out_after_some_rounds() -> None:
    scheduler = DeficitRoundRobin[str](QUANTUM)
    queues = {"large": deque([2500]), "small": deque([10] * 1000)}
    scheduler.add("large")
    scheduler.add("small")
    used = [serve(scheduler, queues) for _ in range(5)]
    assert [bytes_ for name, bytes_ in used if name == "large"] == [0, 0, 2500]


def test_credit_is_not_saved_up_by_leaving() -> None:
    scheduler = DeficitRoundRobin[str](QUANTUM)
    scheduler.add("a")
    scheduler.turn()
    scheduler.end_turn(10, more=False)
    scheduler.add("a")
    assert scheduler.turn() == ("a", QUANTUM)


def test_a_discarded_key_gets_no_turn() -> None:
    scheduler = DeficitRoundRobin[str](QUANTUM)
    for name in "ab":
        scheduler.add(name)
    scheduler.discard("a")
    scheduler.discard("never added")
    assert scheduler.turn()[0] == "b"
    assert len(scheduler) == 1


@given(st.lists(st.lists(sizes, min_size=50, max_size=50), min_size=2, max_size=6), st.integers(1, 60))
def test_busy_keys_get_equal_bytes_but_for_one_quantum_and_item(items: list[list[int]], rounds: int) -> None:
    """Shreedhar and Varghese, lemma 2: served bytes stay within one largest item of rounds x quantum."""
    scheduler = DeficitRoundRobin[str](QUANTUM)
    queues = {str(n): deque(sizes * 10) for n, sizes in enumerate(items)}
    for name in queues:
        scheduler.add(name)
    total = dict.fromkeys(queues, 0)
    for _ in range(min(rounds, 25) * len(queues)):
        name, used = serve(scheduler, queues)
        total[name] += used
    busy = [total[name] for name in queues if queues[name]]
    assert max(busy, default=0) - min(busy, default=0) <= QUANTUM + LARGEST


class Fairness(RuleBasedStateMachine):
    """Items come in any order and size; nobody is passed over, no turn exceeds its budget."""

    def __init__(self) -> None:
        super().__init__()
        self.scheduler = DeficitRoundRobin[str](QUANTUM)
        self.queues: dict[str, deque[int]] = {name: deque() for name in "abcd"}
        self.others_since: dict[str, list[tuple[str, int]]] = {}

    @rule(name=st.sampled_from("abcd"), items=st.lists(sizes, min_size=1, max_size=30))
    def put(self, name: str, items: list[int]) -> None:
        self.queues[name].extend(items)
        self.scheduler.add(name)
        self.others_since.setdefault(name, [])

    @precondition(lambda self: bool(self.scheduler))
    @rule()
    def serve(self) -> None:
        name, used = serve(self.scheduler, self.queues)
        assert used < QUANTUM + LARGEST
        self.others_since.pop(name)
        for waiting in self.others_since.values():
            waiting.append((name, used))
        if self.queues[name]:
            self.others_since[name] = []

    @invariant()
    def waiting_lasts_one_turn_of_each_other_key(self) -> None:
        for turns in self.others_since.values():
            assert len({name for name, _ in turns}) == len(turns)

    @invariant()
    def whoever_has_items_is_in_the_ring(self) -> None:
        assert len(self.scheduler) == sum(1 for queue in self.queues.values() if queue)


TestFairness = Fairness.TestCase
