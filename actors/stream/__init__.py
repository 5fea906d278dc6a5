"""The actor of one stream: it reads the exchange, journals what it accepts, and sends it to a publisher.

`relay` joins the parts: `feed_keeper` keeps a connection to the exchange, relay/intake decides about each
payload, `journal_writer` writes it, `link_keeper` sends it from the window, `backfiller` asks REST for what
is missing, and `stats` collects the figures. `start` says where an incarnation begins. `actor` and `facade`
are what Ray calls.

Knows nothing of critical streams (actors/standby) or of the controller. An event goes from here over a link
to actors/publisher, whose acknowledgement comes back to the window and the journal.
"""
