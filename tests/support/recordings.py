"""A recording of five frames, as `simulator.replay` reads them."""

from __future__ import annotations

import gzip
from pathlib import Path

LINES = [
    b'1000000000 {"stream":"btcusdt@trade","data":{"e":"trade","t":5}}\n',
    b'1500000000 {"lastUpdateId":9,"bids":[]}\n',
    b'2000000000 {"stream":"btcusdt@trade","data":{"e":"trade","t":6}}\n',
    b'3000000000 {"stream":"btcusdt@bookTicker","data":{"u":1}}\n',
    b'4000000000 {"stream":"btcusdt@trade","data":{"e":"trade","t":7}}\n',
]


def recorded(path: Path, lines: list[bytes]) -> Path:
    with gzip.open(path, "wb") as file:
        file.writelines(lines)
    return path
