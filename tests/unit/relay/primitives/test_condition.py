"""Since when a condition has held."""

from __future__ import annotations

from relay.primitives.condition import held_since


def test_it_is_counted_from_when_the_condition_began_to_hold_and_anew_after_a_break():
    since, found = None, []
    for now, holds in enumerate([False, True, True, False, True]):
        since = held_since(since, holds, float(now))
        found.append(since)
    assert found == [None, 1.0, 1.0, None, 4.0]
