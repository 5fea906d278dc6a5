"""The loss ledger: what was lost or healed, as entries and as a report of all of them.

Pure. An entry is written by relay/intake, goes through the window and the journal like an event, and is
published on `sluice.loss.…`; `cli` reads the ledger back through relay/adapters/nats/ledger_reader.py and
shows the report. Knows neither streams nor payloads, only ids, counts and times.
"""
