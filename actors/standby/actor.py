"""The class that Ray makes for each of the two instances of a critical stream."""

from __future__ import annotations

from actors.standby.relay import StandbyRelay
from actors.stream.facade import StreamActorFacade
from relay.config import StreamSettings
from relay.ports import Host


class StandbyActor(StreamActorFacade):
    def __init__(self, settings: StreamSettings, host: Host, twin: bool) -> None:
        super().__init__(settings, lambda: StandbyRelay(settings, host, twin=twin))
