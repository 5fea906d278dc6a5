"""Payloads of two streams: trades, whose ids are consecutive, and book tickers, whose ids only rise."""

from __future__ import annotations

import orjson

MS = 1_000_000
TRADES, BOOKS = "btcusdt@trade", "btcusdt@bookTicker"


def trade(number: int) -> bytes:
    fields = {"e": "trade", "E": 1, "T": 1, "s": "BTCUSDT", "t": number, "p": "1.0", "q": "2", "X": "MARKET"}
    return orjson.dumps(fields | {"m": True})


def book(number: int) -> bytes:
    return orjson.dumps(
        {"e": "bookTicker", "u": number, "s": "BTCUSDT", "b": "1", "B": "2", "a": "3", "A": "4"}
    )


def payload(name: str, number: int) -> bytes:
    return trade(number) if name == TRADES else book(number)
