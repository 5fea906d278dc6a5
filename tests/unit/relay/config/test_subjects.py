"""Subject templates: what NATS and Sluice leave to the user."""

import pytest

from relay.config.subjects import check_subject, parse_template
from relay.errors import ConfigError


@pytest.mark.parametrize(
    "template",
    [
        "binance.{venue}.{symbol}.{channel}",
        "binance.websocket.data",
        "{symbol}",
        "a-{venue}_{symbol}.x",
        "行情.{symbol}",
        "my.sluice.{symbol}",
        "sluices.x",
    ],
)
def test_a_template_may_have_any_words_and_the_three_fields(template: str) -> None:
    assert parse_template(template) == template


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("", "empty word"),
        (".a", "empty word"),
        ("a.", "empty word"),
        ("a..b", "empty word"),
        ("a b", "a space"),
        ("a\tb", "control character"),
        ("a\u00a0b", "control character"),
        ("a.*.b", "a wildcard"),
        ("a.>", "a wildcard"),
        ("$JS.API.x", "lies below $JS."),
        ("$KV.x", "lies below $KV."),
        ("_INBOX.x", "lies below _INBOX."),
        ("sluice.x", "lies below sluice."),
        ("a.{symbl}", "unknown field {symbl}"),
        ("a.{symbol!r}", "unknown field {symbol!r}"),
        ("a.{}", "unknown field {}"),
        ("a.{symbol", "a lone brace"),
        ("a.symbol}", "a lone brace"),
        ("a.{{symbol}}", "a lone brace"),
        ("x" * 256, "longer than 255 bytes"),
        (5, "5 is not text"),
        (None, "null is not text"),
    ],
)
def test_a_template_that_cannot_become_a_subject_is_refused(template: object, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_template(template)
    assert problem in caught.value.problem
    assert caught.value.remedy


def test_a_filled_in_subject_is_checked_again_because_a_symbol_may_be_any_word() -> None:
    with pytest.raises(ConfigError, match=r"nats\.subject: 'sluice\.trade' lies below sluice\."):
        check_subject("sluice.trade", "sluice.trade", path="nats.subject")
