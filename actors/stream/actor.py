"""The class that Ray makes for a stream without a standby instance."""

from __future__ import annotations

from actors.stream.facade import StreamActorFacade
from actors.stream.relay import StreamRelay
from actors.stream.start import FreshStart
from relay.config import StreamSettings
from relay.ports import Host


class StreamActor(StreamActorFacade):
    def __init__(self, settings: StreamSettings, host: Host) -> None:
        super().__init__(settings, lambda: StreamRelay(settings, host, FreshStart(settings, host)))
