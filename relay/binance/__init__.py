"""All knowledge of Binance: venues, stream names, hosts, payload fields, REST calls and limits.

`streams` describes a stream as a `StreamSpec`, which the other packages use; only the reading side
(relay/feed, relay/intake, relay/standby and the actors) may use the modules that know payload fields
(`classifier`, `payload_shape`, `event_time`, `backfill`, `id_gaps`), which `.importlinter` checks.
`connect_budget` and `request_weight` keep below Binance's limits for one IP address. Nothing here opens a
connection; the two `_file` modules share a limit among the processes of a node through a small file.
"""
