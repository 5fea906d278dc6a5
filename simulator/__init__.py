"""The simulated exchange: Binance's market-data WebSocket and the REST calls that heal trades, on loopback.

Pure modules make payloads, arrival times, control answers and REST answers; `outlet`, `pump`, `server` and
`process` act.
"""
