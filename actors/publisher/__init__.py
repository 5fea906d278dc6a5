"""The publisher actor: many streams' records to NATS, and their acknowledgements back.

It holds nothing that the stream actors do not also hold, so that it may be killed at any moment. Batches
arrive from relay/adapters/link_server.py in sessions.py, wait in the lane of their stream (relay/publish) and
are written in fair turns by dispatcher.py; the answers of NATS go back over the link in session.py. Statuses
of critical streams' instances are forwarded by peer_relay.py. It knows no controller and no feed.
"""
