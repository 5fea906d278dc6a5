"""A file that is replaced as a whole."""

from __future__ import annotations

import pytest

from relay.primitives.atomic_file import replace_file


def test_the_file_has_the_new_content_and_nothing_is_left_beside_it(tmp_path):
    path = tmp_path / "state.json"
    replace_file(path, b"one")
    replace_file(path, b"two")
    assert path.read_bytes() == b"two"
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_old_content(tmp_path):
    path = tmp_path / "state"
    replace_file(path, b"one")
    (tmp_path / "state.new").mkdir()
    with pytest.raises(OSError, match=r"state\.new"):
        replace_file(path, b"two")
    assert path.read_bytes() == b"one"
