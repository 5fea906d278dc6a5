"""Accepts what a stream's connection delivers: each payload is classified, checked for gaps, numbered and
encoded.

`intake` is the entry; `gap_tracker` knows which ids were accepted, `gap_hold` holds events behind a gap,
`loss_recorder` writes entries of the loss ledger, and `sequencer` numbers and encodes. Pure: the time comes
with the payloads, and this package knows no connection, file or actor. Encoded batches go to the window of
relay/delivery and, as bytes, to the journal; an `IntakeResult` with a gap goes to
actors/stream/backfiller.py.
"""
