"""The values that every other part of the relay works with: record batches, stored positions, gaps,
assignments, and what actors report about themselves.

It knows no file, no socket and no exchange: what a stream of Binance is called and what its payloads hold is
in relay/binance. A batch (record_batch.py) is made in relay/intake and then keeps its bytes: the same bytes
are in the window, in the journal and on the link.
"""
