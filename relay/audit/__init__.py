"""Checks from what is in NATS alone whether the relay has lost, repeated, reordered or changed events.

Pure, and it knows no exchange: which ids may follow each other is a GapRule that the caller passes in. The
messages come from relay/adapters/nats/consumer.py; audit.py follows them for each stream (stream_audit.py),
and comparison.py sets the result against what the simulated exchange has sent. cli shows both.
"""
