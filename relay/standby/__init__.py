"""What the two instances of a critical stream decide: who is active, what to keep, where to go on.

An instance sends its `peer_status` to the other one; `election` makes of those statuses, and of what
publishers report, the decision to become active. `replay_buffer` (with `spill_file` behind it) keeps what the
standby instance reads until it is stored, and says at which entry a takeover goes on.

Knows payloads, journal records and stored positions; no file but that of `spill_file`, and no sockets,
clocks, actors or publishers. Its decisions are carried out by actors/standby, which feeds the replayed events
to relay/intake as if they had just been read.
"""
