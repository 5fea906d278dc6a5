"""What runs inside Ray, and the client through which a driver starts and commands it.

An actor is an object in a process of its own that Ray places on a node, restarts when the process ends, and
lets others call by name. Here it is a plain class (StreamActor, StandbyActor, PublisherActor, Controller)
that knows nothing of Ray: it is given its settings and a relay.ports.Host, so tests construct it directly.
`actors/cluster` makes a Ray actor of it, by `ray.remote(cls).options(...)` with the class's path.

Layers, each of which imports what is below it: `client`; `controller` and `standby`; `stream` and
`publisher`; `runtime`; `cluster`. Events never pass through Ray: a stream sends them to its publisher over a
socket (relay/delivery). What is decided is pure code in `relay`; the actors wait, send and store.
"""
