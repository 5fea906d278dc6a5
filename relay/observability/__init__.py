"""What can be seen of the relay: metrics, status and its history, health, heartbeat, and the status page.
Pure.

Everything here is computed from the records of relay.model.stats and returned as values or bytes; nothing
decides about the relay. Actors hand metrics to Ray's exporter (actors/cluster/metrics.py), and the controller
serves the page and publishes the heartbeat (actors/controller).

A new metric is a field in relay/model/stats.py, one line in the table of `metrics`, and `make generated`.
"""
