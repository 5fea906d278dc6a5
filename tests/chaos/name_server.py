"""A name server of our own: it tells one address, another one, that it failed, or nothing at all."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.chaos.processes import RESOLV_CONF
from tests.support import needs

A = 1
# QR, RD and RA, with the codes of RFC 1035, 4.1.1.
ANSWER, SERVFAIL = 0x8180, 0x8182


class NameServer:
    """Answers questions for any name by `address`, fails for None, and says nothing when `mute`.

    It has an address of the loopback net to itself, since resolvers know the port 53 alone. Skips the test
    where this user may not listen there. `asked` counts questions.
    """

    def __init__(self, address: str) -> None:
        self.address: str | None = address
        self.mute = False
        self.asked = 0
        self._host = f"127.83.{os.getpid() // 250 % 250}.{os.getpid() % 250 + 1}"

    def __enter__(self) -> Self:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self._socket.bind((self._host, 53))
        except OSError:
            self._socket.close()
            needs.lack("rights", "a name server takes the right to listen on port 53 (root)")
        self._thread = threading.Thread(target=self._serve, name="name server", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", (self._host, 53))
        self._thread.join(5)
        self._socket.close()

    def resolv_conf(self, directory: Path) -> Path:
        """A file that sends a resolver here. Skips the test where this user may not cover the real one."""
        path = directory / "resolv.conf"
        path.write_text(f"nameserver {self._host}\n")
        script = (
            "import pathlib, sys; from tests.chaos.processes import RESOLV_CONF, cover;"
            " cover(RESOLV_CONF, pathlib.Path(sys.argv[1]))"
        )
        command = [sys.executable, "-c", script, str(path)]
        if subprocess.run(command, check=False, capture_output=True).returncode:
            needs.lack("rights", f"a resolver of one's own takes the right to cover {RESOLV_CONF} (root)")
        return path

    def _serve(self) -> None:
        while True:
            query, peer = self._socket.recvfrom(512)
            if not query:
                return
            self.asked += 1
            if not self.mute:
                self._socket.sendto(answer(query, self.address), peer)


def answer(query: bytes, address: str | None) -> bytes:
    """One question, and one record if it was for an IPv4 address."""
    end = query.index(b"\0", 12) + 5
    known = address is not None and int.from_bytes(query[end - 4 : end - 2], "big") == A
    flags = ANSWER if address is not None else SERVFAIL
    head = query[:2] + b"".join(number.to_bytes(2, "big") for number in (flags, 1, int(known), 0, 0))
    record = b""
    if known and address is not None:
        # A pointer to the name in the question, type A, class IN, no time to live, four bytes.
        record = b"\xc0\x0c\0\x01\0\x01\0\0\0\0\0\x04" + socket.inet_aton(address)
    return head + query[12:end] + record
