"""What a configuration means for the actors."""

from __future__ import annotations

from relay.config.diff import publisher_revision, revision
from relay.control.store import Running


class Target:
    """What the configuration comes to without the stopped streams, worked out once for each change of it.

    `streams` gives the revision of each wanted stream's settings, `order` the position of every stream,
    stopped ones too, in the configuration.
    """

    def __init__(self, running: Running, stopped: frozenset[str]) -> None:
        self.version = running.version
        self.stopped = stopped
        self.config = running.config
        every = {settings.spec.key: settings for settings in running.config.streams}
        self.settings = {key: settings for key, settings in every.items() if key not in stopped}
        self.silence_limits_s = {key: one.spec.silence_limit_s for key, one in self.settings.items()}
        self.streams = {key: revision(settings) for key, settings in self.settings.items()}
        self.critical = frozenset(key for key, one in self.settings.items() if one.critical)
        self.publisher_revision = publisher_revision(running.config.nats)
        self.order = {key: at for at, key in enumerate(every)}

    def label(self, *, twin: bool) -> str | None:
        """The label of the nodes for a stream's actor, or for its twin; None is any node."""
        resources = self.config.resources
        return (resources.twin_nodes if twin else None) or resources.stream_nodes
