"""`python -m tests.support.screenshots [FOLDER]` makes the pictures of docs/seeing.md anew, in docs/images.

They show a whole relay of the ten streams before a simulated exchange, which floods one of them. Needs
Chromium, and ImageMagick, which makes the files small.
"""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import sys
import tempfile
import threading
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from tests.support.browser import Tab, browser
from tests.support.driver_processes import ROOT, ask, started

FOLDER = ROOT / "docs" / "images"
FLOODED, ROTATED, WITH_GAP = "btcusdt@trade", "btcusdt@depth20@100ms", "ethusdt@trade"
FLOOD_PER_S = 15_000
WIDTH, HEIGHT = 1280, 1000
MAX_BYTES = 150_000
_pause = threading.Event()


class Stage:
    """The relay that is shown; `command` and `order` act on it and on its exchange."""

    def __init__(self, home: Path, exchange: str, dashboard: str) -> None:
        self.home = home
        self.exchange = urlsplit(exchange).netloc
        self.dashboard = dashboard
        (state,) = (home / "state" / "sluice").glob("cluster-*.json")
        self.cluster: dict[str, Any] = json.loads(state.read_text())
        self.token = Path(self.cluster["token_path"]).read_text()

    def command(self, *arguments: str) -> str:
        done = ask(*arguments, home=self.home)
        assert done.returncode == 0, done.stderr
        return done.stdout

    @property
    def status(self) -> Any:
        return json.loads(self.command("status", "--json"))

    def scale(self, publishers: int) -> None:
        page = self.status["page"]
        token = Path(page["token_file"]).read_text().strip()
        asked = urllib.request.Request(
            f"{page['url']}/scale",
            json.dumps({"publishers": publishers, "who": "Ann"}).encode(),
            {"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(asked, timeout=10) as answer:
            assert answer.status == 200

    def order(self, what: str, **query: object) -> None:
        connection = http.client.HTTPConnection(self.exchange, timeout=10)
        connection.request("POST", f"/sim/{what}?{urlencode(query)}")
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        connection.close()

    def play(self) -> None:
        """What an eventful minute and a half leaves in charts and lists."""
        self.order("shutdown", stream=ROTATED)
        self.scale(3)
        self.order("refuse-rest", count=100)
        self.order("skip", stream=WITH_GAP, count=3)
        for seconds in (15, 8, 20, 8):
            self.order("calm", stream=FLOODED)
            _pause.wait(seconds)
            self.order("flood", stream=FLOODED, rate=FLOOD_PER_S)
            _pause.wait(5)
        self.order("accept-rest")


def shoot(tab: Tab, folder: Path, name: str) -> None:
    path = folder / f"{name}.png"
    path.write_bytes(tab.picture())
    subprocess.run(["convert", path, "-strip", "+dither", "-colors", "128", f"PNG8:{path}"], check=True)
    size = path.stat().st_size
    print(f"{path.name}: {size:,} bytes")
    assert size <= MAX_BYTES, f"{path.name} is longer than {MAX_BYTES} bytes"


def the_page(tab: Tab, stage: Stage, folder: Path) -> None:
    page = stage.status["page"]
    tab.screen(WIDTH, HEIGHT)
    tab.open(page["url"])
    tab.run(f"sessionStorage.setItem('token', {json.dumps(Path(page['token_file']).read_text().strip())})")
    tab.open(page["url"])
    tab.until("document.querySelectorAll('#streams tbody tr').length === 10")
    tab.until('document.querySelector("#streams .bar i").style.width === "max(4px, 100%)"')
    tab.screen(WIDTH, int(tab.run("document.querySelector('footer').getBoundingClientRect().bottom")))
    shoot(tab, folder, "page-light")
    tab.screen(WIDTH, HEIGHT, dark=True)
    shoot(tab, folder, "page-dark")
    tab.screen(390, 844, phone=True)
    shoot(tab, folder, "page-phone")


def rays_pages(tab: Tab, stage: Stage, folder: Path) -> None:
    tab.call("Network.enable")
    headers = {"Authorization": f"Bearer {stage.token}"}
    tab.call("Network.setExtraHTTPHeaders", headers=headers)
    wide = {"width": 1500, "height": 1400, "deviceScaleFactor": 0.8, "mobile": False}
    tab.call("Emulation.setDeviceMetricsOverride", **wide)
    tab.open(f"{stage.dashboard}/#/cluster")
    shown(tab, f"{FLOODED} backlog=")
    # Down to where the actors begin, below Ray's own bar.
    tab.run(
        "[...document.querySelectorAll('tr')].find(one => one.innerText.trim().startsWith('ray::Controller'))"
        ".scrollIntoView()"
    )
    tab.run("window.scrollBy(0, -60)")
    shoot(tab, folder, "ray-cluster")
    asked = urllib.request.Request(f"{stage.dashboard}/logical/actors", headers=headers)
    with urllib.request.urlopen(asked, timeout=10) as answer:
        actors = json.load(answer)["data"]["actors"]
    (flooded,) = (one["actorId"] for one in actors.values() if one["name"].endswith(f":{FLOODED}"))
    tab.open("about:blank")
    tab.open(f"{stage.dashboard}/#/actors/{flooded}")
    shown(tab, f"Stream({FLOODED})")
    shown(tab, "backlog=")
    shoot(tab, folder, "ray-actor")


def shown(tab: Tab, text: str) -> None:
    tab.until(f"document.body.innerText.includes({json.dumps(text)})")


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="sluice-", ignore_cleanup_errors=True) as directory:
        home = Path(directory)
        with started("run", "--simulate", "--embedded-nats", home=home) as run:
            exchange = re.search(r"ws://\S+", run.read_until("simulated exchange"))
            dashboard = re.search(r"dashboard: (\S+)", run.read_until("dashboard: "))
            run.read_until("10/10 streams live")
            assert exchange and dashboard
            stage = Stage(home, exchange[0], dashboard[1])
            stage.play()
            with browser() as tab:
                the_page(tab, stage, folder)
                rays_pages(tab, stage, folder)
            run.process.terminate()
            assert run.end() == 0


if __name__ == "__main__":
    main()
