"""Everything that speaks to NATS: connecting and logging in, publishing, fencing, provisioning, reading back.

It decides nothing about streams beyond what NATS itself requires (fencing.py). Publishers use connection.py
for finished protocol bytes and reply_tap.py for the answers; the controller uses provisioning.py and
heartbeat.py; commands read with consumer.py and ledger_reader.py. nats-py's internals are used in client.py
alone. Every failure leaves as BusError.
"""
