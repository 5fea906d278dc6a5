"""Paths and control messages, with Binance's answers and its silences."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from relay.binance.streams import Venue, parse_stream
from simulator.subscriptions import Subscriptions, Target, flows, parse_target

SPOT, USDM, COINM = Venue.SPOT, Venue.USDM, Venue.COINM


def subscriptions(
    venue: Venue = USDM, *names: str, limit: int = 10, wrapped_errors: bool = True
) -> Subscriptions:
    return Subscriptions(venue, Target("", False, names), limit, wrapped_errors=wrapped_errors)


def asked(of: Subscriptions, method: str, params: object = None, request_id: object = 1) -> dict[str, Any]:
    message: dict[str, object] = {"method": method, "id": request_id}
    if params is not None:
        message["params"] = params
    answer: dict[str, Any] = orjson.loads(of.answer(orjson.dumps(message)).text)
    return answer


@pytest.mark.parametrize(
    ("venue", "path", "target"),
    [
        (SPOT, "/ws/btcusdt@trade", Target("", False, ("btcusdt@trade",))),
        (SPOT, "/ws/a@trade/b@trade", Target("", False, ("a@trade", "b@trade"))),
        (SPOT, "/ws", Target("", False, ())),
        (SPOT, "/ws/", Target("", False, ())),
        (SPOT, "/stream?streams=a@trade/b@depth@100ms", Target("", True, ("a@trade", "b@depth@100ms"))),
        (SPOT, "/stream?streams=a%40trade", Target("", True, ("a@trade",))),
        (SPOT, "/stream", Target("", True, ())),
        (SPOT, "/ws/btcusdt%40kline_1m%40%2B08%3A00", Target("", False, ("btcusdt@kline_1m@+08:00",))),
        (USDM, "/public/ws/a@trade", Target("public", False, ("a@trade",))),
        (USDM, "/market/stream?streams=a@ticker", Target("market", True, ("a@ticker",))),
        (USDM, "/ws/a@trade/a@trade", Target("", False, ("a@trade",))),
        (SPOT, "/public/ws/a@trade", None),
        (COINM, "/market/ws/a@trade", None),
        (USDM, "/", None),
        (USDM, "/public", None),
        (USDM, "/other/ws/a@trade", None),
    ],
)
def test_a_path_says_route_form_and_streams(venue: Venue, path: str, target: Target | None) -> None:
    assert parse_target(venue, path) == target


@pytest.mark.parametrize(
    ("venue", "route", "name", "flow"),
    [
        (USDM, "public", "btcusdt@trade", True),
        (USDM, "market", "btcusdt@trade", False),
        (USDM, "market", "btcusdt@markPrice@1s", True),
        (USDM, "public", "btcusdt@markPrice@1s", False),
        (USDM, "", "btcusdt@trade", True),
        (USDM, "", "btcusdt@markPrice@1s", False),
        (USDM, "private", "btcusdt@trade", False),
        (SPOT, "", "btcusdt@ticker", True),
        (COINM, "", "btcusd_perp@ticker", True),
    ],
)
def test_only_the_right_route_carries_a_stream(venue: Venue, route: str, name: str, flow: bool) -> None:
    assert flows(route, parse_stream(venue, name)) is flow


def test_subscribing_is_acknowledged_and_listed_in_order() -> None:
    of = subscriptions(USDM, "a@trade")
    assert asked(of, "SUBSCRIBE", ["c@trade", "b@depth"], 7) == {"result": None, "id": 7}
    assert asked(of, "LIST_SUBSCRIPTIONS", request_id=8) == {
        "result": ["a@trade", "c@trade", "b@depth"],
        "id": 8,
    }


def test_only_new_names_are_added_and_only_known_ones_removed() -> None:
    of = subscriptions(USDM, "a@trade")
    assert of.answer(b'{"method":"SUBSCRIBE","params":["a@trade","b@trade"],"id":1}').added == ("b@trade",)
    assert of.answer(b'{"method":"UNSUBSCRIBE","params":["c@trade","a@trade"],"id":2}').removed == (
        "a@trade",
    )
    assert of.names == ("b@trade",)


@pytest.mark.parametrize("name", ["nosuch@trade", "BTCUSDT@trade", "btcusdt@fundingRate@1s", "!nothing@arr"])
def test_a_well_formed_name_is_acknowledged_whether_it_exists_or_not(name: str) -> None:
    assert asked(subscriptions(), "SUBSCRIBE", [name]) == {"result": None, "id": 1}


@pytest.mark.parametrize(
    "params", [["btcusdt"], ["@trade"], ["btcusdt@"], ["a b@trade"], [5], [], "a@trade", None]
)
def test_a_malformed_name_gets_an_error_object_and_changes_nothing(params: object) -> None:
    of = subscriptions()
    answer = asked(of, "SUBSCRIBE", params)
    assert answer["id"] == 1
    assert answer["error"]["code"] == 2
    assert answer["error"]["msg"].startswith("Invalid request: ")
    assert of.names == ()


def test_errors_can_take_the_flat_form() -> None:
    answer = asked(subscriptions(wrapped_errors=False), "SUBSCRIBE", ["btcusdt"], 3)
    assert answer == {"code": 2, "msg": "Invalid request: invalid stream", "id": 3}


@pytest.mark.parametrize(("text", "code"), [("{", 3), ("", 3), ("[]", 2), ('{"method":"DANCE","id":1}', 2)])
def test_nonsense_gets_an_error_object(text: str, code: int) -> None:
    assert orjson.loads(subscriptions().answer(text).text)["error"]["code"] == code


def test_more_streams_than_a_connection_may_have_are_refused() -> None:
    of = subscriptions(USDM, "a@trade", limit=2)
    assert "too many" in asked(of, "SUBSCRIBE", ["b@trade", "c@trade"])["error"]["msg"]
    assert asked(of, "SUBSCRIBE", ["b@trade"])["result"] is None


@pytest.mark.parametrize(
    ("venue", "request_id", "taken"),
    [
        (SPOT, -5, True),
        (SPOT, "mine", True),
        (SPOT, None, True),
        (SPOT, "x" * 37, False),
        (SPOT, 1.5, False),
        (USDM, 5, True),
        (USDM, -5, False),
        (USDM, "mine", False),
        (USDM, None, False),
        (USDM, True, False),
    ],
)
def test_request_ids_follow_the_venue(venue: Venue, request_id: object, taken: bool) -> None:
    answer = asked(subscriptions(venue), "SUBSCRIBE", ["a@trade"], request_id)
    assert answer == {"result": None, "id": request_id} if taken else "error" in answer


def test_the_combined_form_can_be_switched() -> None:
    of = subscriptions()
    assert asked(of, "GET_PROPERTY", ["combined"])["result"] is False
    assert asked(of, "SET_PROPERTY", ["combined", True]) == {"result": None, "id": 1}
    assert asked(of, "GET_PROPERTY", ["combined"])["result"] is True
    assert "error" in asked(of, "SET_PROPERTY", ["combined", "yes"])
    assert of.combined
