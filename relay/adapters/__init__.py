"""Everything of relay that waits or acts: sockets, HTTP, NATS clients, child processes.

`websocket` reads the exchange (`websocket_frames` is its protocol without a socket), `http` asks its REST
side, `link_client` and `link_server` join stream actors and publishers, `nats` talks to NATS servers, `local`
starts them. Decisions are made in the pure packages below; the actors above join the two. No adapter knows
Ray.
"""
