"""The file itself: small, plain, UTF-8 YAML, and nothing that could hang or fool the reader."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.config.yaml_file import MAX_FILE_BYTES, FromEnvironment, interpolate, parse_yaml, read_file
from relay.errors import ConfigError

BOMB = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 30))

HOSTILE = {
    "alias bomb": (BOMB, "a1[0]: line 2: alias *a0; write the value out"),
    "alias": ("a: &x 1\nb: *x", "b: line 2: alias *x"),
    "python tag": ("a: !!python/object/apply:os.system ['true']", "tag 'tag:yaml.org,2002:python/object"),
    "stream taken for a tag": (
        "shards:\n- !bookTicker",
        "shards[0]: line 2: tag '!bookTicker'; leave it",
    ),
    "tag on a key": ("!!str a: 1", "tag"),
    "deep flow": ("a: " + "[" * 500_000, "nested deeper than 12 levels"),
    "deep block": ("- " * 300_000, "nested deeper than 12 levels"),
    "deep mappings": ("{a: " * 200_000, "nested deeper than 12 levels"),
    "deep keys": ("? " * 500_000, "a key that is not plain text"),
    "too many values": ("a:\n" + "- 1\n" * 260_000, "more than 20000 values"),
    "too many keys": ("".join(f"k{n}: 1\n" for n in range(90_000)), "more than 20000 values"),
    "directives": ("%TAG !a! b\n" * 80_000 + "---\na: 1", "line 1 is a YAML directive"),
    "long text": ("a: " + "x" * 1_000_000, "a: line 1: a text of 1000000 characters"),
    "long quoted text": ('a: "' + "\\n" * 500_000 + '"', "a text of 500000 characters"),
    "huge number": ("a: " + "9" * 5_000, "a text of 5000 characters"),
    "sexagesimal number": ("a: " + "1:" * 400_000 + "1", "a text of 800001 characters"),
    "tabs without end": ("\t\n" * 500_000, "not valid YAML"),
    "more than 1 MiB": ("#" * (MAX_FILE_BYTES + 1), "larger than 1 MiB"),
    "control character": ("a: \x07", "not valid YAML: control characters are not allowed"),
    "tab": ("nats:\n\tservers: x", "line 2 is indented with a tab; use spaces"),
    "tab after spaces": ("nats:\n  a: 1\n  \tb: 2", "line 3 is indented with a tab; use spaces"),
    "empty": ("", "the file is empty"),
    "comments alone": ("# nothing\n", "the file is empty"),
    "null": ("~", "the file is empty"),
    "list": ("- a", "the file is not a mapping"),
    "scalar": ("shards", "the file is not a mapping"),
    "duplicate key": (
        "queue:\n  max_bytes: 1\n  max_bytes: 2",
        "queue.max_bytes: line 3: the key stands",
    ),
    "duplicate key, quoted": ('a: 1\n"a": 2', "a: line 2: the key stands here a second time"),
    "two documents": ("a: 1\n---\nb: 2", "line 2: a second document starts"),
    "list as key": ("? [a]\n: 1", "a key that is not plain text"),
    "not closed": ("a: [1", "not valid YAML: line 2, column 1"),
    "lone surrogate": ("a: \ud800", "the text is not UTF-8"),
}


# Two seconds are what a user may have to wait for a refusal; the rest is for a busy machine.
@pytest.mark.timeout(10)
@pytest.mark.parametrize(("text", "message"), HOSTILE.values(), ids=HOSTILE)
def test_what_a_configuration_cannot_be_is_refused_with_line_and_remedy(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text)
    assert message in str(caught.value)
    assert caught.value.remedy
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("5", 5),
        ("-5", -5),
        ("0.5", 0.5),
        ('"5"', "5"),
        ("on", True),
        ("off", False),
        ("Yes", True),
        ("'off'", "off"),
        ("~", None),
        ("", None),
        ("16MiB", "16MiB"),
        ("1:30", "1:30"),
        ("2026-13-45", "2026-13-45"),
        ("1_000", "1_000"),
        ("9999999999999999999", "9999999999999999999"),
        ("btcusdt@trade", "btcusdt@trade"),
        ("[a, {b: c}]", ["a", {"b": "c"}]),
        ("|\n  x", "x"),
    ],
)
def test_scalars_mean_what_they_look_like(written: str, value: object) -> None:
    assert parse_yaml(f"key: {written}") == {"key": value}


def test_keys_are_text_even_where_they_look_like_something_else() -> None:
    assert parse_yaml("1: a\noff: b\n<<: {c: d}") == {"1": "a", "off": "b", "<<": {"c": "d"}}


def test_variables_are_filled_in_anywhere_and_defaults_stand_in_for_unset_and_empty_ones() -> None:
    raw = {"a": ["${X}", {"b": "nats://${X}:${PORT:-4222}"}], "c": "${EMPTY:-d}", "e": "${EMPTY}", "f": 5}
    filled = interpolate(raw, {"X": "h", "EMPTY": ""})
    assert filled == {"a": ["h", {"b": "nats://h:4222"}], "c": "d", "e": "", "f": 5}


def test_variables_are_not_filled_in_twice() -> None:
    assert interpolate("${X}", {"X": "${Y}", "Y": "y"}) == "${Y}"


def test_text_from_the_environment_can_be_told_from_a_default() -> None:
    assert isinstance(interpolate("${X:-d}", {"X": "x"}), FromEnvironment)
    assert not isinstance(interpolate("${X:-d}", {}), FromEnvironment)
    assert not isinstance(interpolate("plain", {}), FromEnvironment)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${NAME}", "nats.password: environment variable NAME is not set; set it, or write ${NAME:-default}"),
        ("${}", "has a broken reference; write ${NAME} or ${NAME:-default}"),
        ("${1X}", "has a broken reference"),
        ("${NAME-x}", "has a broken reference"),
        ("a ${", "has a broken reference"),
        ("${A:-x}" * 17, "more than 16 variables"),
        ("${BIG}", "grows beyond 4096 characters"),
    ],
)
def test_a_reference_that_cannot_be_filled_in_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        interpolate({"nats": {"password": text}}, {"BIG": "x" * 5000})
    assert message in str(caught.value)


def test_a_file_is_read_as_utf_8_with_or_without_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "shards.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: \xe5\xb8\x81")
    assert parse_yaml(read_file(path)) == {"a": "币"}


def test_a_file_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "shards.yaml"
    path.write_bytes("a: é".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"is not UTF-8 text \(byte 3\); save it as UTF-8"):
        read_file(path)


def test_a_file_of_ten_megabytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "shards.yaml"
    path.write_bytes(b"# padding\n" * 1_000_000)
    with pytest.raises(ConfigError, match="larger than 1 MiB"):
        read_file(path)


@pytest.mark.timeout(10)
def test_what_is_not_a_regular_file_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (tmp_path, pipe, Path("/dev/zero")):
        with pytest.raises(ConfigError, match="is not a file"):
            read_file(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no file .*nowhere.yaml; name one with -c FILE"):
        read_file(tmp_path / "nowhere.yaml")


@settings(deadline=None)
@given(st.text(st.characters()) | st.text("abc:-[]{}#&*!|>'\"%@` \n\t?,~0", max_size=80))
def test_any_text_is_a_mapping_or_is_refused(text: str) -> None:
    try:
        value = parse_yaml(text)
    except ConfigError as error:
        assert error.problem and error.remedy
    else:
        assert all(isinstance(key, str) for key in value)
