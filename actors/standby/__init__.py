"""The actors of a critical stream: a standby instance that reads and keeps events, active after a takeover.

`relay` runs an instance: it reads the exchange, sends and receives statuses over `peer_links`, and asks
relay/standby/election.py whether to become active. `replay_memory` keeps what is read meanwhile. A `takeover`
is a `Start` of actors/stream: from then on every event goes to a `StreamRelay`, first those of the memory,
then what is read. `step_down` is the way back: an active instance without a connection ends if its peer still
has one.

Knows actors/stream, which knows nothing of this package; knows neither Ray nor the controller. An event goes
on to a publisher, as in any other stream.
"""
