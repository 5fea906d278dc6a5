"""The status page in a browser: what it shows, what its buttons do, and for whom it can be used.

Every test ends with a look at what the console and the page's own policy complained about.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from relay.model.stats import StreamState
from relay.primitives.text import age, count, millis, rate
from tests.support.browser import Tab, browser
from tests.support.page_rig import TOKEN, PageRig, Served, config

pytestmark = pytest.mark.needs("chromium")

BTC, ETH = "usdm:btcusdt@trade", "usdm:ethusdt@trade"
# A phone that is held upright; WCAG asks for 320.
NARROWEST, WIDEST = 320, 1500


@pytest.fixture(scope="module")
def chromium() -> Iterator[Tab]:
    with browser() as tab:
        yield tab


@pytest.fixture
def tab(chromium: Tab) -> Iterator[Tab]:
    chromium.complaints.clear()
    chromium.screen(1280, 900)
    yield chromium
    assert chromium.complaints == []
    chromium.open("about:blank")


Open = Callable[..., Served]


@pytest.fixture
def opened(tab: Tab, serve: Callable[..., Served]) -> Open:
    """Call it for a relay whose page is open and shows it; with `unlocked` by its token."""

    def open_page(*, unlocked: bool = False, **more: Any) -> Served:
        served = serve(**more)
        tab.open(served.url)
        if unlocked:
            tab.run(f"sessionStorage.setItem('token', '{TOKEN}')")
            tab.open(served.url)
            tab.until("!document.getElementById('scaling').hidden")
        tab.until("document.getElementById('main').getAttribute('aria-busy') === 'false'")
        return served

    return open_page


def text(tab: Tab, selector: str) -> str:
    return str(tab.run(f"document.querySelector({json.dumps(selector)})?.innerText"))


def rows(tab: Tab, section: str) -> list[list[str]]:
    """What stands in the cells of each row."""
    return tab.run(
        f"[...document.querySelectorAll('#{section} tbody tr')].map(row => [...row.cells].map(cell =>"
        " (cell.querySelector('.text, .state, :scope > span') ?? cell).textContent))"
    )


def shows(tab: Tab, selector: str, wanted: str) -> None:
    tab.until(f"document.querySelector({json.dumps(selector)})?.innerText.includes({json.dumps(wanted)})")


FIGURES = [
    {"rate_per_s": 9.96, "queued": 1, "latency_p50_ms": 0.004, "latency_p99_ms": 9.996},
    {"rate_per_s": 12.5, "queued": 999_999, "latency_p50_ms": 99.95, "latency_p99_ms": 1234.5},
    {"rate_per_s": 1_234_567.0, "spilled": 1_234_567, "latency_p50_ms": None, "latency_p99_ms": None},
    {"rate_per_s": 0.0, "lost": 1_000, "gaps": 2, "repaired": 3},
    {"rate_per_s": 13.5, "gaps": 2, "backlog_age_s": 5_999.0, "queued": 3},
    {"state": StreamState.BLOCKED, "problem": "the journal is full", "in_flight": 7, "backlog_age_s": 99.96},
]


def test_it_shows_the_figures_of_status_json_in_the_words_of_the_terminal(tab: Tab, opened: Open) -> None:
    names = [f"s{number}usdt@trade" for number in range(len(FIGURES))]
    served = opened(streams=names)
    served.controller.scale(1, "the test")
    for name, figures in zip(names, FIGURES, strict=True):
        served.cluster.change(f"usdm:{name}", **figures)
    problem = "the journal is full"
    served.until(lambda status: problem in status.problems, "a look at the new figures")
    tab.until(f"document.getElementById('trouble').innerText.includes({problem!r})")
    status = served.ask("GET", "/status.json").json
    shown = {row[0]: row[1:] for row in rows(tab, "streams")}
    assert shown.keys() == {one["stream"] for one in status["streams"]}
    for one in status["streams"]:
        waits = one["backlog"]
        gaps = f"{count(one['gaps'])} gap{'s' * (one['gaps'] != 1)}"
        assert shown[one["stream"]][:-1] == [
            one["state"], rate(one["rate_per_s"]), count(waits),
            age(one["backlog_age_s"]) if waits else "-",
            millis(one["latency_p50_ms"]), millis(one["latency_p99_ms"]),
            gaps if one["gaps"] and not one["lost"] else count(one["lost"]), one["publisher"],
        ]  # fmt: skip
    (publisher,) = status["publishers"]
    (row,) = rows(tab, "publishers")
    assert row[:5] == [
        "p0", "connected", f"{publisher['load']:.0%}", rate(publisher["rate_per_s"]),
        millis(publisher["ack_p99_ms"]),
    ]  # fmt: skip
    assert text(tab, "#lost-count") == count(sum(one["lost"] for one in status["streams"]))
    assert text(tab, "#backlog") == count(sum(one["backlog"] for one in status["streams"]))


def test_bars_and_charts_follow_the_backlog(tab: Tab, opened: Open) -> None:
    served = opened()
    served.cluster.change(BTC, queued=4_000, backlog_age_s=3.0)
    served.cluster.change(ETH, queued=1_000, backlog_age_s=0.1)
    shows(tab, "#backlog", "5,000")
    widths = "[...document.querySelectorAll('#streams .bar i')].map(bar => bar.style.width)"
    assert tab.run(widths) == ["max(4px, 100%)", "max(4px, 25%)"]
    assert tab.run("[...document.querySelectorAll('#streams .bar')].map(bar => bar.className)") == [
        "bar late",
        "bar",
    ]
    tab.until(
        "document.getElementById('backlog-chart').getAttribute('aria-label').includes('most 5,000 events')"
    )
    assert tab.run("document.querySelector('#backlog-chart .line').getAttribute('d').length > 10")


def test_losses_rotations_and_who_did_what_are_told_as_they_happen(tab: Tab, opened: Open) -> None:
    served = opened()
    served.cluster.change(BTC, lost=7, gaps=1)
    served.cluster.change(ETH, rotations=1)
    shows(tab, "#happenings", "lost 7, which the exchange sent and nobody received")
    shows(tab, "#happenings", "rotated its connection without a gap")
    # For those who do not look at the screen.
    tab.until("document.getElementById('said').innerText.includes('lost 7')")
    served.order("/scale", {"publishers": 2, "who": "Ann"})
    shows(tab, "#changes", "publishers set to 2\nAnn on the page, from 127.0.0.1")


def test_the_keyboard_alone_unlocks_scales_and_drains(tab: Tab, opened: Open) -> None:
    served = opened()
    tab_to(tab, "#lock")
    tab.press("Enter")
    tab.until("document.getElementById('unlock').open")
    tab.type(TOKEN)
    tab.press("Tab")
    tab.type("Ann")
    tab.press("Enter")
    tab.until("!document.getElementById('scaling').hidden")
    tab_to(tab, "#more")
    tab.press("Enter", "Tab", "Enter")
    served.until(lambda status: status.scale.actual == 2, "two publishers")
    tab.until("document.querySelectorAll('#publishers tbody tr').length === 2")
    shows(tab, "#scale", "2 run, fixed: set by Ann on the page")
    tab_to(tab, f"#streams tr[data-key='{ETH}'] button")
    tab.press("Enter")
    tab.until("document.getElementById('sure').open")
    # What it would do is not chosen by a hasty Enter.
    tab.press("Enter")
    assert tab.run("!document.getElementById('sure').open")
    tab.press("Enter", "Tab", "Enter")
    served.until(lambda status: [one.key for one in status.stopped] == [ETH], "the stream's end")
    shows(tab, f"#streams tr[data-key='{ETH}']", "stopped")
    tab_to(tab, f"#streams tr[data-key='{ETH}'] button")
    tab.press("Enter")
    served.until(lambda status: not status.stopped and len(status.streams) == 2, "its return")


def test_a_question_that_was_left_is_not_answered_by_the_next_one(tab: Tab, opened: Open) -> None:
    """The event of the first dialog's end comes when the second one is open."""
    served = opened(unlocked=True)
    drain = "document.querySelector('#streams tr[data-key=\"{}\"] button').click();"
    leave, go = (
        "document.querySelector('#sure [value=cancel]').click();",
        "document.querySelector('#sure .grave').click();",
    )
    tab.run(f"{drain.format(BTC)} {leave} {drain.format(ETH)} 0")
    tab.until("document.getElementById('sure-title').textContent === 'Stop ethusdt@trade?'")
    tab.run(f"{go} 0")
    served.until(lambda status: [one.key for one in status.stopped] == [ETH], "the end of the second alone")
    assert served.ask("GET", "/status.json").json["changes"][-1]["what"] == f"{ETH} stopped"


def tab_to(tab: Tab, selector: str) -> None:
    """Press the key until the control has the focus."""
    for _ in range(60):
        if tab.run(f"document.activeElement.matches({json.dumps(selector)})"):
            return
        tab.press("Tab")
    raise AssertionError(f"the tab key never came to {selector}")


def test_a_wrong_token_unlocks_nothing_and_says_so(tab: Tab, opened: Open) -> None:
    opened()
    tab.run("document.getElementById('lock').click()")
    tab.type("a-token-of-somebody-else")
    tab.press("Enter")
    shows(tab, "#unlock .wrong", "That is not the token.")
    assert tab.run("document.getElementById('scaling').hidden && sessionStorage.getItem('token') === null")
    tab.run("document.getElementById('token').focus()")
    tab.type(TOKEN)
    tab.press("Enter")
    tab.until("!document.getElementById('scaling').hidden")


def test_a_token_that_counts_no_more_is_asked_for_anew(tab: Tab, opened: Open) -> None:
    served = opened(unlocked=True)
    served.token_file.write_text("another-token-of-the-tests")
    tab.run("document.getElementById('automatic').click()")
    shows(tab, "#unlock .wrong", "This token is no longer valid.")
    tab.run("document.getElementById('unlock').close()")
    assert served.controller.status().scale.mode == "auto"


def test_what_is_refused_is_told_and_changes_nothing(tab: Tab, opened: Open) -> None:
    served = opened(unlocked=True)
    tab.run(f"document.querySelector('#streams tr[data-key=\"{ETH}\"] button').click()")
    tab.until("document.getElementById('sure').open")
    # Meanwhile somebody else takes it out of the configuration.
    page = f"{{listen: '127.0.0.1:{served.port}', token_file: {served.token_file}}}"
    served.controller.apply(config(page, ["btcusdt@trade"]))
    served.until(lambda status: len(status.streams) == 1, "the other stream's end")
    tab.run("document.querySelector('#sure .grave').click()")
    shows(tab, "#toast", "Not done: ")
    assert "ethusdt@trade" in text(tab, "#toast")
    assert served.controller.status().stopped == ()


def test_without_a_token_file_there_is_nothing_to_press(tab: Tab, opened: Open) -> None:
    opened(page="{{listen: '127.0.0.1:0'}}")
    assert tab.run("document.getElementById('lock').hidden && document.getElementById('scaling').hidden")
    assert tab.run("[...document.querySelectorAll('button')].every(one => one.offsetParent === null)")


def test_before_there_is_anything_it_says_what_will_come(tab: Tab, page_rig: PageRig) -> None:
    served = page_rig.start_stuck()
    tab.open(served.url)
    shows(tab, "#streams .empty", "The relay has just started.")
    shows(tab, "#publishers .empty", "No publisher runs yet.")
    shows(tab, "#trouble", "Not ready")
    assert text(tab, "#p99") == "-"


def test_a_controller_that_is_away_is_told_and_comes_back_by_itself(
    tab: Tab, opened: Open, page_rig: PageRig
) -> None:
    served = opened()
    address = urlsplit(served.url).netloc
    served.cluster.change(BTC, queued=41)
    shows(tab, "#backlog", "41")
    served.controller.stop()
    shows(tab, "#lost", "The controller does not answer; the relay continues without it.")
    assert text(tab, "#condition") == "Reconnecting"
    assert tab.run("document.getElementById('main').classList.contains('stale')")
    assert text(tab, "#backlog") == "41", "the last figures stay"
    successor = page_rig.start(served.cluster)
    successor.controller.apply(config(f"{{listen: '{address}', token_file: {served.token_file}}}"))
    served.cluster.change(BTC, queued=42)
    tab.until("document.getElementById('lost').hidden")
    shows(tab, "#backlog", "42")
    assert not tab.run("document.getElementById('main').classList.contains('stale')")
    # The missing time is a blank in the chart: what was before it is kept.
    assert tab.run("document.querySelector('#backlog-chart .line').getAttribute('d').split('M').length") >= 2


@pytest.mark.parametrize("unlocked", [False, True])
def test_nothing_scrolls_sideways_on_any_screen(tab: Tab, opened: Open, unlocked: bool) -> None:
    served = opened(unlocked=unlocked, streams=("btcusdt@depth20@100ms", "1000shibusdt@depth20@100ms"))
    served.cluster.change(
        "usdm:btcusdt@depth20@100ms", state=StreamState.CONNECTING, queued=123_456, backlog_age_s=99.0,
        rate_per_s=123_456.0, latency_p99_ms=12_345.0, lost=123_456,
        last_error="cannot connect to wss://fstream.binance.com/ws/btcusdt@depth20@100ms: HTTP 451",
    )  # fmt: skip
    shows(tab, "#streams", "HTTP 451")
    too_wide = []
    for width in range(NARROWEST, WIDEST, 60):
        tab.screen(width, 800)
        over = tab.run(
            "Math.max(document.documentElement.scrollWidth - innerWidth,"
            " ...[...document.querySelectorAll('.card')].map(card => card.scrollWidth - card.clientWidth))"
        )
        too_wide += [(width, over)] if over > 0 else []
    assert too_wide == []


CONTROLS = """[...document.querySelectorAll('a, button, input, [tabindex]')].filter(one =>
    one.tabIndex >= 0 && !one.disabled && one.checkVisibility()).length"""
FOCUSED = """(() => { const one = document.activeElement; if (one === document.body) return null;
    const box = one.getBoundingClientRect();
    return [...document.querySelectorAll('*')].indexOf(one) + ' ' + (box.width > 0 && box.height > 0); })()"""


@pytest.mark.parametrize("width", [360, 1280])
def test_the_tab_key_comes_to_every_control_and_each_has_a_name(tab: Tab, opened: Open, width: int) -> None:
    opened(unlocked=True)
    tab.screen(width, 800)
    reached = set()
    for _ in range(int(tab.run(CONTROLS))):
        tab.press("Tab")
        reached.add(tab.run(FOCUSED))
    assert len(reached) == tab.run(CONTROLS)
    assert all(one and one.endswith("true") for one in reached)
    nameless = [node for node in accessible(tab) if not node["name"]["value"].strip()]
    assert nameless == []


ROLES = {
    "button",
    "link",
    "textbox",
    "spinbutton",
    "dialog",
    "region",
    "table",
    "columnheader",
    "rowheader",
    "image",
}


def accessible(tab: Tab) -> list[Any]:
    """What a screen reader finds of these roles."""
    nodes = tab.call("Accessibility.getFullAXTree")["nodes"]
    found = [node for node in nodes if not node["ignored"] and node["role"]["value"] in ROLES]
    assert {node["role"]["value"] for node in found} >= {"button", "link", "table", "image", "spinbutton"}
    return found


# The ratio of WCAG 2, of each text that can be seen to what is painted below it.
FAINT = """(() => {
  const channel = c => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const parts = text => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const below = one => {
    const paint = parts(getComputedStyle(one).backgroundColor);
    return paint.length < 4 || paint[3] === 1 ? paint : below(one.parentElement);
  };
  const faint = [];
  for (const one of document.querySelectorAll('body *')) {
    const own = [...one.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
    if (!own || !one.checkVisibility() || one.closest('.unseen, script, style, [disabled]')) continue;
    const both = [parts(getComputedStyle(one).color), below(one)].map(light).sort((a, b) => a - b);
    const ratio = (both[1] + 0.05) / (both[0] + 0.05);
    if (ratio < 4.5) faint.push(`${one.textContent.trim()}: ${ratio.toFixed(2)}`);
  }
  return faint;
})()"""


@pytest.mark.parametrize("dark", [False, True])
def test_every_text_stands_out_by_day_and_by_night(tab: Tab, opened: Open, dark: bool) -> None:
    served = opened(unlocked=True)
    tab.screen(1280, 900, dark=dark)
    served.cluster.change(BTC, queued=9, backlog_age_s=9.0, lost=3, rejected=1, state=StreamState.BLOCKED)
    served.controller.stop_stream(ETH, "Ann")
    shows(tab, "#streams", "stopped")
    shows(tab, "#happenings", "stopped reading")
    assert tab.run(FAINT) == []
    tab.run("document.querySelector('#streams .act button').click()")
    assert tab.run(FAINT) == []
