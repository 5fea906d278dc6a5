"""The controller actor: it keeps the actors as the configuration and the load require, and reports on them.

`actor` takes the operators' commands from any thread, `reconcile_loop` observes, decides (with relay.control)
and acts once a second, `status` turns the observation into what is reported, and `page_server` serves it.
Work that waits for NATS runs on a thread of its own, as a `periodic_job`.

No event passes through here: while no controller runs, the relay delivers, and only replacing actors,
scaling, moving streams and the status page stop.
"""
