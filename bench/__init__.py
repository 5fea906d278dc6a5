"""Compares Sluice with two baselines on the same exchange, NATS server and consumer.

`python -m bench` starts a fresh `testbed` for each system (`systems`), offers it the `loads`, and writes
tables and plots (`report`, `plots`); `python -m bench.limits` measures what only Sluice can be asked about.
It runs `driver.py` as a user would, and reads from NATS alone what arrived.
"""
