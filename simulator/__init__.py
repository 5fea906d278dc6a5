"""The simulated exchange: Binance's market-data WebSocket and the REST calls that heal trades, on loopback.

It knows what a Binance stream is (`relay.binance`) and nothing else of the relay, which connects to it as to
the real exchange; tests, `demo` and `bench` compare what it sent with what NATS holds. An event is made by a
source (`payloads`, from `market`, `tape`, `order_book`, `statistics`), handed out by its `channel` when
`traffic` says that it is due, and written by the `client` connections that subscribed; `report` counts it.
`client`, `pump` and `server` use sockets and clocks, all else is pure. `python -m simulator` runs it alone.
"""
