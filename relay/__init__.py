"""Sluice without Ray: pure packages that decide, and adapters that act.

The packages stand on layers, and each imports only from layers below its own (.importlinter;
docs/architecture.md has the table). Everything but `adapters` takes values and `now` and returns values: no
asyncio, no sockets, no clock. Nothing here knows Ray, the actors or the command line. An event comes in
through `adapters.websocket`, passes `feed`, `binance`, `intake`, `delivery` and `journal` in a stream
actor, and `publish` and `adapters.nats` in a publisher; `control` decides who works where, and
`observability` shows it.
"""
