"""Inside a publisher: one lane for each stream, from batches to the protocol bytes that NATS reads.

Pure: it knows no connection. relay/adapters/link_server.py delivers the batches, the lane queues them and
encodes them in turn (lane.py, encoder.py, envelope.py, message_ids.py), and the chain (chain.py) keeps what
NATS has not answered. actors/publisher writes the bytes, and sends acknowledgements back over the link.
"""
