"""`losses`: the loss ledger, read back from JetStream."""

from __future__ import annotations

import asyncio
import os
import time
from argparse import Namespace
from dataclasses import asdict

import orjson

from cli.display.losses import loss_table, total_sentence
from cli.display.terminal import Tone
from cli.screen import Screen
from relay.adapters.nats.ledger_reader import read_ledger
from relay.config import Config, load_config
from relay.errors import UsageError
from relay.losses.entry import LossEntry
from relay.losses.report import LossReport, LossState, report_losses
from relay.model.choices import Delivery
from relay.primitives.text import age, utc


def run(args: Namespace) -> int:
    config = load_config(args.config, os.environ)
    if config.nats.delivery is Delivery.CORE:
        raise UsageError(
            "nats.delivery is core, so nobody stores the ledger; subscribe to sluice.loss.> while the relay"
            " runs, or set nats.delivery to jetstream"
        )
    since_ns = None if args.since is None else args.since(time.time_ns())
    ledger = asyncio.run(read_ledger(config.nats, since_ns))
    report = report_losses(ledger.entries, since_ns=since_ns, stream=args.stream)
    if args.json:
        found = _as_json(report) | {"unreadable": ledger.unreadable}
        print(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())
    else:
        _show(report, _scope(config, args.stream, since_ns), ledger.unreadable)
    return 0


def _scope(config: Config, stream: str | None, since_ns: int | None) -> str:
    of = f"of {stream} " if stream else ""
    when = f"since {utc(since_ns)}" if since_ns else f"of the last {age(config.nats.stream.max_age_s)}"
    return of + when


def _show(report: LossReport, scope: str, unreadable: int) -> None:
    screen = Screen()
    if unreadable:
        screen.print_line(f"{unreadable} messages on sluice.loss.> are no entries of the ledger", Tone.WARN)
    if not report.records:
        screen.print_line(f"the ledger is empty: no event {scope} is known to be missing", Tone.GOOD)
        return
    for line in loss_table(report, width=screen.width, colour=screen.colour):
        print(line)
    unhealed = [one.entry.reason for one in report.records if one.state in (LossState.OPEN, LossState.PARTLY)]
    for reason in dict.fromkeys(filter(None, unhealed)):
        screen.print_line(f"not healed: {reason}")
    screen.print_line(total_sentence(report), Tone.BAD if report.open or report.uncounted else Tone.GOOD)


def _as_json(report: LossReport) -> dict[str, object]:
    totals = {key: value for key, value in asdict(report).items() if key != "records"}
    gaps = [
        {**_entry(one.entry), "state": one.state, "open": one.open, "recovered": one.healed}
        for one in report.records
    ]
    return {"holes": gaps, "totals": totals}


def _entry(entry: LossEntry) -> dict[str, object]:
    fields: dict[str, object] = orjson.loads(entry.encode())
    return fields
