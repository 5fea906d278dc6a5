"""From a stream actor to its publisher: the window of what is not acknowledged, and the link's messages.

Pure: it knows neither sockets nor files nor what a payload says. Events come from relay/intake into the
window (window.py) and go from there as bytes (link_codec.py) to the publisher that failover.py chooses;
actors/stream/link_keeper.py does both. Acknowledgements come back over the link into the window, which then
tells how far the journal may be removed. resume.py finds what NATS has stored already when a session begins.
"""
