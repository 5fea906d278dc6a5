"""Where the status page listens, and whose requests it takes."""

from __future__ import annotations

import pytest

from relay.config import parse_config
from relay.config.listen_address import Listen, host_of, listen, may_be_asked, url
from relay.errors import ConfigError

ONE = "shards: [btcusdt@trade]\n"


def page(text: str):
    return parse_config(f"{ONE}page: {text}\n", {"HOME": "/home/u"}).page


@pytest.mark.parametrize(
    ("written", "where"),
    [
        ("{}", Listen("127.0.0.1", 8350, fallback=True)),
        ("on", Listen("127.0.0.1", 8350, fallback=True)),
        ("off", None),
        ("{listen: off}", None),
        ("{listen: 'off'}", None),
        ("{listen: '127.0.0.1:0'}", Listen("127.0.0.1", 0)),
        ("{listen: '0.0.0.0:8350'}", Listen("0.0.0.0", 8350)),
        ("{listen: 'localhost:9'}", Listen("localhost", 9)),
        ("{listen: '[::1]:8350'}", Listen("::1", 8350)),
    ],
)
def test_what_the_file_may_say(written, where):
    assert listen(page(written).listen) == where


@pytest.mark.parametrize(
    ("written", "path"),
    [
        ("{listen: 8350}", "page.listen"),
        ("{listen: 'example.org:80'}", "page.listen"),
        ("{listen: '127.0.0.1:70000'}", "page.listen"),
        ("{listen: '127.0.0.1'}", "page.listen"),
        ("{names: ['a b']}", r"page.names\[0\]"),
        ("{names: ['example.org:80']}", r"page.names\[0\]"),
        ("{token_file: token}", "page.token_file"),
        ("{token: abc}", "page.token"),
    ],
)
def test_what_it_may_not_say(written, path):
    with pytest.raises(ConfigError, match=f"^{path}: "):
        page(written)


@pytest.mark.parametrize(
    "header",
    [
        "127.0.0.1:8350", "127.0.0.1", "localhost:9000", "LOCALHOST", "[::1]:8350", "10.1.2.3:8350",
        "sluice.example.org",
    ],
)  # fmt: skip
def test_addresses_localhost_and_known_names_are_served(header):
    assert may_be_asked(header, ("sluice.example.org",))


@pytest.mark.parametrize(
    "header",
    [
        "", "evil.example", "127.0.0.1.evil.example:8350", "localhost.evil.example", "sluice.example.org.",
        "127.0.0.1:8350@evil.example", "a" * 400, "127.0.0.1:8350\r\nx: y", "[::1", "0x7f000001", "::1:8350",
    ],
)  # fmt: skip
def test_other_names_may_have_been_pointed_here_by_somebody_else(header):
    assert not may_be_asked(header, ("sluice.example.org",))


def test_the_port_is_no_part_of_the_host():
    assert (host_of("LocalHost:80"), host_of("[::1]:80"), host_of("a/b")) == ("localhost", "::1", None)


@pytest.mark.parametrize(
    ("host", "shown"),
    [("127.0.0.1", "http://127.0.0.1:1"), ("0.0.0.0", "http://127.0.0.1:1"), ("::1", "http://[::1]:1")],
)
def test_the_url_can_be_opened(host, shown):
    assert url(host, 1) == shown
