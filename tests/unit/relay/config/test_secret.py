"""Secrets are references, filled in where they are used."""

from __future__ import annotations

import pickle

import pytest

from relay.config.secret import Part, Secret
from relay.errors import ConfigError

URL = Secret("${NATS_URL}", Part.PASSWORD)


def test_a_reference_shows_and_pickles_no_secret():
    secret = Secret("${PASSWORD}")
    assert secret.reveal({"PASSWORD": "hunter2"}, "nats.password") == "hunter2"
    assert pickle.loads(pickle.dumps(secret)) == secret
    assert b"hunter2" not in pickle.dumps(secret)


@pytest.mark.parametrize(
    ("secret", "text", "found"),
    [
        (URL, "nats://me:hunter2@h", "hunter2"),
        (URL, "nats://h1, nats://me:hunter2@h2", "hunter2"),
        (URL, "nats://me:p%40ss@h", "p@ss"),
        (Secret("${NATS_URL}", Part.USER), "nats://token@h", "token"),
        (Secret("nats://me:${NATS_URL}@h", Part.PASSWORD), "hunter2", "hunter2"),
    ],
)
def test_a_piece_of_a_url_is_found(secret, text, found):
    assert secret.reveal({"NATS_URL": text}, "nats.password") == found


@pytest.mark.parametrize("environ", [{}, {"NATS_URL": "nats://h"}, {"NATS_URL": ""}])
def test_what_is_not_set_where_it_is_needed_is_said_with_a_remedy(environ):
    with pytest.raises(ConfigError, match=r"nats\.password: .*for the Ray nodes too") as refused:
        URL.reveal(environ, "nats.password")
    assert "NATS_URL" in str(refused.value)


def test_a_proof_tells_the_same_secret_from_another_one_and_neither_itself():
    def proof(text: str, key: bytes = b"k") -> str:
        return Secret("${X}").proof({"X": text}, "nats.token", key)

    assert proof("hunter2") == proof("hunter2")
    assert len({proof("hunter2"), proof("hunter3"), proof("hunter2", b"other")}) == 3
