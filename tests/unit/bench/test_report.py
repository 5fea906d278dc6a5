"""The benchmark's counts, medians, table and pictures."""

from __future__ import annotations

import json
from dataclasses import replace
from math import isnan
from xml.etree import ElementTree

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bench.loads import QUICK, STREAMS, Load, flood
from bench.measurement import Measurement, StreamCounts, Usage, counts_of, middle, middle_quantiles
from bench.plots import pictures
from bench.ramp import run_ramp
from bench.report import Machine, RampResult, Results, as_json, rows, table
from bench.svg import Axis, Series, bar_chart, line_chart, linear_axis, log_axis
from bench.tally import QUANTILES, Tallies, Tally, quantile, quantiles_ms, spells

MACHINE = Machine("AMD EPYC <7>", 2, 8 * 2**30, "Linux 6.1", "3.11.9", "v2.15.1")
SYSTEMS = ("Sluice", "old design")


def envelope(stream: str, event_id: int, stamp_us: int) -> bytes:
    return (
        f'{{"stream":"{stream}","data":{{"e":"trade","E":{stamp_us},"T":{stamp_us},"s":"BTCUSDT","t":{event_id},'
        '"p":"1.0","m":true},"timestamp":"x","message_id":"y","source":"binance-websocket","version":"1.0"}'
    ).encode()


def measurement(
    system: str = "Sluice",
    load: Load = QUICK.loads[0],
    late_ms: float = 1.0,
    missing: int = 0,
    number: int = 0,
) -> Measurement:
    sent = {name: round(load.seconds * rate) for name, rate in load.rates.items()}
    return Measurement(
        system=system,
        load=load.name,
        round=number,
        seconds=load.seconds,
        offered_per_s=load.rate_per_s,
        streams={
            name: StreamCounts(count, count - missing, count - missing, 0, 0) for name, count in sent.items()
        },
        strange=0,
        latency_ms={group: [late_ms * (1 + q) for q in QUANTILES] for group in load.groups},
        relay={"stream": Usage(0.5, 100, 80), "publisher": Usage(0.25, 100, 20)},
        daemons=Usage(0.1, 10, 10),
        apparatus={},
        spells={
            group: [{"start_s": 0.0, "p99_ms": late_ms}, {"start_s": 0.25, "p99_ms": 2.0}]
            for group in load.groups
        },
    )


def results() -> Results:
    measurements = [
        measurement(system, load, late_ms)
        for system, late_ms in zip(SYSTEMS, (0.5, 2.0), strict=True)
        for load in (*QUICK.loads, QUICK.flood)
    ]
    ramps = tuple(
        RampResult(system, (measurement(system), measurement(system, missing=9)), None) for system in SYSTEMS
    )
    return Results(MACHINE, QUICK, SYSTEMS, tuple(measurements), ramps, {system: [1.5] for system in SYSTEMS})


class TestTally:
    def test_tells_duplicates_and_late_arrivals_apart(self) -> None:
        tally = Tally()
        for event_id in (10, 11, 13, 12, 12, 14):
            tally.add(event_id)
        assert (tally.unique, tally.duplicates, tally.out_of_order) == (5, 1, 1)

    @given(st.lists(st.integers(0, 5000), min_size=1))
    def test_counts_each_id_once_whatever_the_order(self, ids: list[int]) -> None:
        tally = Tally()
        for event_id in ids:
            tally.add(1_000_000 + event_id)
        assert tally.unique == len(set(ids))
        assert tally.duplicates == len(ids) - len(set(ids))

    def test_refuses_an_id_that_cannot_belong_to_the_run(self) -> None:
        tally = Tally()
        tally.add(1_000_000)
        with pytest.raises(ValueError, match="far below"):
            tally.add(5)


class TestTallies:
    def test_read_label_id_and_age_from_the_middle_of_a_buffer(self) -> None:
        counts = Tallies()
        message = envelope("btcusdt@trade", 77, 1_700_000_000_000_000)
        counts.add(b"noise" + message + b"\r\n", 5, 5 + len(message), 1_700_000_000_000_250)
        tally = counts.streams[b"btcusdt@trade"]
        assert (tally.unique, list(tally.late_us), list(tally.stamp_us)) == (
            1,
            [250],
            [1_700_000_000_000_000],
        )

    def test_without_timing_count_ids_alone(self) -> None:
        counts = Tallies(timed=False)
        message = envelope("btcusdt@trade", 77, 1)
        counts.add(message, 0, len(message), 2)
        tally = counts.streams[b"btcusdt@trade"]
        assert (tally.unique, len(tally.late_us)) == (1, 0)

    def test_refuse_what_is_no_event(self) -> None:
        with pytest.raises(ValueError, match="not found"):
            Tallies().add(b'{"stream":"btcusdt@trade","data":{}}', 0, 36, 0)


class TestStatistics:
    @given(st.lists(st.integers(0, 10**6), min_size=1), st.sampled_from(QUANTILES))
    def test_a_quantile_is_the_smallest_value_that_enough_others_do_not_exceed(
        self, values: list[int], q: float
    ) -> None:
        ordered = sorted(values)
        found = quantile(ordered, q)
        assert sum(value <= found for value in ordered) >= q * len(ordered) - 1e-6
        assert sum(value < found for value in ordered) <= q * len(ordered)

    def test_quantiles_of_nothing_are_nothing(self) -> None:
        assert quantiles_ms([]) == []

    def test_spells_group_by_the_time_of_sending(self) -> None:
        tally = Tally()
        for stamp_us, late_us in ((0, 1000), (100_000, 3000), (300_000, 2000)):
            tally.stamp_us.append(stamp_us)
            tally.late_us.append(late_us)
        found = spells([tally, Tally()], 0.25)
        assert [(spell.start_s, spell.count, spell.max_ms) for spell in found] == [
            (0.0, 2, 3.0),
            (0.25, 1, 2.0),
        ]

    def test_the_median_ignores_what_was_not_measured(self) -> None:
        assert middle([3.0, float("nan"), 1.0]) == 2.0
        assert isnan(middle([]))

    def test_the_median_of_distributions_is_taken_quantile_by_quantile(self) -> None:
        rounds = [measurement(late_ms=late_ms) for late_ms in (1.0, 5.0, 2.0)]
        assert middle_quantiles(rounds, "all") == [2.0 * (1 + q) for q in QUANTILES]


class TestMeasurement:
    def test_holds_only_if_everything_came_in_time_once_and_in_order(self) -> None:
        assert measurement().held
        assert not measurement(missing=1).held

    def test_counts_streams_that_never_delivered_as_lost(self) -> None:
        streams = counts_of(
            {"a": 5, "b": 3}, {"a": 5}, {"a": {"unique": 5, "duplicates": 0, "out_of_order": 0}}
        )
        assert (streams["a"].unique, streams["b"].unique, streams["b"].sent) == (5, 0, 3)

    def test_spreads_the_cpu_of_all_processes_over_what_was_delivered(self) -> None:
        one = measurement()
        assert one.cpu_us_per_message == pytest.approx(0.75e6 / one.unique)


class TestClimb:
    def test_ends_after_two_failures_and_holds_the_highest_rate_that_lasts(self) -> None:
        asked: list[tuple[float, float]] = []

        def run(rate: float, seconds: float) -> Measurement:
            asked.append((rate, seconds))
            fails = rate >= 40 or (rate == 30 and seconds == 10)
            return measurement(missing=1 if fails else 0)

        found = run_ramp("Sluice", (10, 20, 30, 40, 50, 60), 2, 10, run)
        assert asked == [(10, 2), (20, 2), (30, 2), (40, 2), (50, 2), (30, 10), (20, 10)]
        assert len(found.steps) == 5
        assert found.held is not None

    def test_a_rate_that_the_exchange_did_not_reach_is_not_held(self) -> None:
        def run(rate: float, seconds: float) -> Measurement:
            sent = measurement()
            return replace(sent, offered_per_s=2 * sent.sent_per_s) if seconds == 10 and rate == 20 else sent

        found = run_ramp("Sluice", (10, 20), 2, 10, run)
        assert found.held == run(10, 10)

    def test_holds_nothing_where_every_step_fails(self) -> None:
        found = run_ramp("Sluice", (10, 20, 30), 2, 10, lambda rate, seconds: measurement(missing=1))
        assert found.held is None


class TestTable:
    def test_names_machine_loads_and_systems(self) -> None:
        text = table(results())
        for word in (str(MACHINE), "calm", "high", "flood, calm streams", *SYSTEMS, "p99.9 ms"):
            assert word in text

    def test_adds_up_the_losses_of_the_rounds_and_takes_the_median_latency(self) -> None:
        rounds = tuple(
            measurement(late_ms=late, missing=lost) for late, lost in ((1.0, 0), (9.0, 2), (3.0, 0))
        )
        row = rows(Results(MACHINE, QUICK, SYSTEMS, rounds, (), {}))[0]
        assert (row.sent, row.lost) == (3 * rounds[0].sent, 2 * len(STREAMS))
        assert row.p50_ms == pytest.approx(4.5)

    def test_a_flood_is_judged_by_its_calm_streams(self) -> None:
        load = flood(3)
        row = rows(Results(MACHINE, QUICK, SYSTEMS, (measurement(load=load),), (), {}))[0]
        assert row.sent == 9 * 100 * 3

    def test_says_how_much_of_what_was_sent_is_stored(self) -> None:
        kept = (replace(measurement(), stored=1999), replace(measurement(), stored=2000))
        text = table(Results(MACHINE, QUICK, SYSTEMS, kept, (), {}))
        assert "stored by JetStream: 3,999 of the 4,000 sent in calm and high" in text

    def test_the_figures_can_be_written_as_json(self) -> None:
        written = json.loads(json.dumps(as_json(results())))
        assert written["machine"]["cores"] == 2
        assert len(written["measurements"]) == 6


class TestPictures:
    def test_there_are_four_and_each_names_the_machine(self) -> None:
        made = pictures(results())
        assert sorted(made) == ["cpu", "flood", "latency", "ramp"]
        for text in made.values():
            words = "".join(ElementTree.fromstring(text).itertext())
            assert str(MACHINE) in words
            assert all(system in words for system in SYSTEMS)

    def test_a_load_without_data_has_no_picture(self) -> None:
        assert pictures(Results(MACHINE, QUICK, SYSTEMS, (), (), {})) == {}

    @given(st.floats(1e-3, 1e5), st.floats(1.0, 1e4))
    @example(low=9999.999999999998, factor=1.0)
    def test_a_log_axis_holds_its_values_between_its_ticks(self, low: float, factor: float) -> None:
        axis = log_axis("ms", low, low * factor)
        assert axis.low <= low * (1 + 1e-9)
        assert axis.high >= low * factor * (1 - 1e-9)
        assert axis.low < axis.high
        assert len(axis.ticks) >= 2

    @given(st.floats(1e-3, 1e6))
    def test_a_linear_axis_reaches_its_highest_value_with_a_tick(self, high: float) -> None:
        axis = linear_axis("us", high)
        assert axis.high >= high * (1 - 1e-9)
        assert axis.ticks[-1][0] == pytest.approx(axis.high)

    def test_text_from_outside_cannot_break_the_document(self) -> None:
        axis = Axis("<&>", 0, 1, ((0.0, "<"), (1.0, "&")))
        series = [Series('a"<b', "#000000", ((0.0, 0.5), (1.0, float("nan"))))]
        for text in (
            line_chart("<t&>", "&", axis, axis, series),
            bar_chart("<t&>", "&", axis, ["<"], series),
        ):
            assert ElementTree.fromstring(text).tag.endswith("svg")
