"""What the two instances of a critical stream decide: which one is active, what the standby keeps, and where
a takeover continues.

An instance sends its `peer_status` to the other one. From those statuses and from what publishers report,
`election` decides whether an instance must become active. `replay_buffer`, which overflows into `spill_file`,
keeps what the standby instance reads until it is stored, and finds the entry at which a takeover continues.

This package knows payloads, journal records and stored positions. It knows no file but that of `spill_file`,
and no sockets, clocks, actors or publishers. Its decisions are carried out by actors/standby, which feeds the
replayed events to relay/intake as if they had just been read.
"""
