"""A NATS server with JetStream, as far as Sluice uses it: the client protocol, and the rules of storing.

Rules are those of nats-server 2.15, in its order: the two expected sequences are held against the JetStream
stream's and the subject's (10071), a known id within the dedup window is a duplicate, and what is new must
find the message before it as `Nats-Expected-Last-Msg-Id` says (10070). What is stored survives a kill, and so
do the ids that a restart finds in the dedup window.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson

from tests.simulation.world import Process, World

HOST, PORT = "nats.test", 4222
INFO = {
    "server_id": "N", "version": "2.15.1", "proto": 1, "headers": True, "jetstream": True,
    "max_payload": 1 << 20, "client_id": 1,
}  # fmt: skip
WRONG_ID, WRONG_SEQUENCE, NO_MESSAGE, NO_STREAM, OUT_OF_ROOM = 10070, 10071, 10037, 10059, 10077


@dataclass(frozen=True, slots=True)
class Message:
    sequence: int
    subject: str
    head: bytes
    fields: dict[str, str]
    body: bytes
    at: float

    @property
    def message_id(self) -> str:
        return self.fields.get("Nats-Msg-Id", "")


class RefusedMessage(Exception):
    def __init__(self, code: int, text: str) -> None:
        super().__init__(code, text)
        self.code = code
        self.text = text


@dataclass
class Stored:
    """One JetStream stream on the server's disk, and the ids that the server has in memory."""

    name: str
    subjects: tuple[str, ...]
    window_s: float
    messages: list[Message] = field(default_factory=list)
    ids: dict[str, tuple[int, float]] = field(default_factory=dict)

    def put(self, subject: str, head: bytes, body: bytes, now: float) -> tuple[int, bool]:
        """The sequence, and whether it was stored before."""
        fields = read_headers(head)
        message_id = fields.get("Nats-Msg-Id", "")
        self._check_sequences(subject, fields)
        known = self.ids.get(message_id)
        if known is not None and now - known[1] < self.window_s:
            return known[0], True
        self._check_id(fields)
        message = Message(len(self.messages) + 1, subject, head, fields, body, now)
        self.messages.append(message)
        if message_id:
            self.ids[message_id] = (message.sequence, now)
        return message.sequence, False

    def _check_sequences(self, subject: str, fields: dict[str, str]) -> None:
        sequence = fields.get("Nats-Expected-Last-Sequence")
        if sequence is not None and int(sequence) != len(self.messages):
            raise RefusedMessage(WRONG_SEQUENCE, f"wrong last sequence: {len(self.messages)}")
        of_subject = fields.get("Nats-Expected-Last-Subject-Sequence")
        if of_subject is not None:
            found = self.last(subject)
            if int(of_subject) != (found.sequence if found else 0):
                raise RefusedMessage(WRONG_SEQUENCE, "wrong last sequence")

    def _check_id(self, fields: dict[str, str]) -> None:
        expected = fields.get("Nats-Expected-Last-Msg-Id")
        if expected is not None and expected != (self.messages[-1].message_id if self.messages else ""):
            raise RefusedMessage(WRONG_ID, "wrong last msg ID")

    def last(self, subject: str) -> Message | None:
        return next((each for each in reversed(self.messages) if each.subject == subject), None)

    def restarted(self, now: float) -> None:
        self.ids = {
            each.message_id: (each.sequence, each.at)
            for each in self.messages
            if each.message_id and now - each.at < self.window_s
        }


class NatsModel:
    """The server over all its incarnations. `refuse` may refuse a message that would be stored."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.streams: dict[str, Stored] = {}
        self.refuse: Callable[[str], bool] = lambda subject: False
        self.duplicates = 0
        self.process: Process | None = None

    def add(self, name: str, subjects: tuple[str, ...], window_s: float) -> Stored:
        self.streams[name] = Stored(name, subjects, window_s)
        return self.streams[name]

    def start(self) -> None:
        self.process = self.world.process("nats")
        for stream in self.streams.values():
            stream.restarted(self.world.now)
        self.world.network.listen(self.process, lambda: _Session(self), HOST, PORT)

    def storing(self, subject: str) -> Stored | None:
        return next(
            (one for one in self.streams.values() if any(_fits(subject, s) for s in one.subjects)), None
        )

    def answer(self, subject: str, head: bytes, body: bytes) -> dict[str, Any] | None:
        """None when nobody is there to answer."""
        if subject.startswith("$JS.API."):
            return self._api(subject.removeprefix("$JS.API."), body)
        stream = self.storing(subject)
        if stream is None:
            return None
        try:
            if self.refuse(subject):
                raise RefusedMessage(OUT_OF_ROOM, "maximum bytes exceeded")
            sequence, duplicate = stream.put(subject, head, body, self.world.now)
        except RefusedMessage as refused:
            error = {"code": 400, "err_code": refused.code, "description": refused.text}
            return {"error": error, "stream": stream.name, "seq": 0}
        self.duplicates += duplicate
        return {"stream": stream.name, "seq": sequence} | ({"duplicate": True} if duplicate else {})

    def _api(self, call: str, body: bytes) -> dict[str, Any]:
        verb, _, name = call.rpartition(".")
        stream = self.streams.get(name)
        if stream is None:
            return {"error": {"code": 404, "err_code": NO_STREAM, "description": "stream not found"}}
        if verb == "STREAM.INFO":
            return {
                "config": {"subjects": list(stream.subjects)},
                "state": {"last_seq": len(stream.messages)},
            }
        found = stream.last(orjson.loads(body)["last_by_subj"])
        if found is None:
            return {"error": {"code": 404, "err_code": NO_MESSAGE, "description": "no message found"}}
        hdrs, data = (base64.b64encode(one).decode() for one in (found.head, found.body))
        return {"message": {"subject": found.subject, "seq": found.sequence, "hdrs": hdrs, "data": data}}


class _Session(asyncio.Protocol):
    """One client's connection."""

    def __init__(self, model: NatsModel) -> None:
        self._model = model
        self._rest = b""
        self._subscriptions: dict[str, str] = {}

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.write(b"INFO %b\r\n" % orjson.dumps(INFO))

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        at = 0
        out: list[bytes] = []
        while (end := data.find(b"\r\n", at)) >= 0:
            words = data[at:end].decode().split(" ")
            verb = words[0]
            if verb in ("PUB", "HPUB"):
                size = int(words[-1])
                if len(data) < end + 2 + size + 2:
                    break
                self._publish(words, data[end + 2 : end + 2 + size], out)
                at = end + 2 + size + 2
                continue
            at = end + 2
            if verb == "PING":
                out.append(b"PONG\r\n")
            elif verb == "SUB":
                self._subscriptions[words[-1]] = words[1]
            elif verb == "UNSUB":
                self._subscriptions.pop(words[1], None)
        self._rest = data[at:]
        if out:
            self._transport.write(b"".join(out))

    def _publish(self, words: list[str], content: bytes, out: list[bytes]) -> None:
        headed = words[0] == "HPUB"
        head_bytes = int(words[-2]) if headed else 0
        reply = words[2] if len(words) == (5 if headed else 4) else ""
        answer = self._model.answer(words[1], content[:head_bytes], content[head_bytes:])
        sid = next((sid for sid, subject in self._subscriptions.items() if _fits(reply, subject)), None)
        if not reply or sid is None:
            return
        if answer is None:
            status = b"NATS/1.0 503\r\n\r\n"
            out.append(f"HMSG {reply} {sid} {len(status)} {len(status)}\r\n".encode() + status + b"\r\n")
            return
        body = orjson.dumps(answer)
        out.append(f"MSG {reply} {sid} {len(body)}\r\n".encode() + body + b"\r\n")


def read_headers(head: bytes) -> dict[str, str]:
    lines = head.decode().split("\r\n")[1:]
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines) if name}


def _fits(subject: str, pattern: str) -> bool:
    if subject == pattern:
        return True
    if "*" not in pattern and ">" not in pattern:
        return False
    words, wanted = subject.split("."), pattern.split(".")
    if wanted[-1] == ">":
        return len(words) >= len(wanted) and all(
            want in ("*", word) for word, want in zip(words, wanted[:-1], strict=False)
        )
    return len(words) == len(wanted) and all(
        want in ("*", word) for word, want in zip(words, wanted, strict=True)
    )
