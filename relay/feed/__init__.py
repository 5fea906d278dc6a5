"""Decides about the connections of one stream: when it is silent, when another connection replaces it, and
which events came on both.

Pure: it gets payloads and the time, and opens or closes nothing; actors/stream/feed_keeper.py does that with
the connections of relay/adapters/websocket.py. It may know what an event is (relay/binance), and nothing of
gaps, windows, journals or NATS. The payloads go on to relay/intake.
"""
