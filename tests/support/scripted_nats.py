"""A NATS server that sends a few given bytes and nothing else, for what a real one cannot be made to do."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

INFO = {"server_id": "X", "version": "2.15.1", "max_payload": 1048576, "proto": 1, "auth_required": True}


@contextmanager
def scripted_server(*words: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """Sends `words` to the first client; the list gathers what that sends."""
    received: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.settimeout(5)
                for word in words:
                    peer.sendall(word)
                while data := peer.recv(65536):
                    received.append(data)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"nats://127.0.0.1:{listener.getsockname()[1]}", received
        thread.join(5)
