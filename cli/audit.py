"""`audit`: what an independent consumer finds in NATS, without any figure of the relay."""

from __future__ import annotations

import asyncio
import os
from argparse import Namespace
from dataclasses import asdict

import orjson

from cli.background_audit import sources
from cli.display.audit import audit_table, latency_text
from cli.display.terminal import Tone
from cli.screen import Screen
from relay.adapters.nats.consumer import AuditConsumer, connector
from relay.audit.audit import Audit
from relay.audit.stream_audit import StreamAudit
from relay.binance.id_gaps import gap_rule
from relay.config import Config, load_config
from relay.errors import BusError
from relay.model.choices import Overflow

# Enough for a full day of ten busy streams at 30,000 messages a second.
STORED_DEADLINE_S = 3600.0
_MAY_SKIP = frozenset({Overflow.CONFLATE, Overflow.DROP_OLDEST, Overflow.DROP_NEWEST})


def run(args: Namespace) -> int:
    config = load_config(args.config, os.environ)
    audit = Audit(gap_rule, [one.spec.key for one in config.streams if one.overflow in _MAY_SKIP])
    asyncio.run(_listen(config, audit, args.seconds, stored=args.stored))
    found = audit.report()
    passed = bool(found) and not audit.malformed and all(one.clean for one in found)
    if args.json:
        print(orjson.dumps(_as_json(audit, found, passed), option=orjson.OPT_INDENT_2).decode())
    else:
        _show(audit, found, passed)
    return 0 if passed else 1


async def _listen(config: Config, audit: Audit, seconds: float, *, stored: bool) -> None:
    async with AuditConsumer(connector(config.nats), sources(config), audit, from_start=stored) as consumer:
        if not stored:
            await asyncio.sleep(seconds)
        if not await consumer.caught_up(STORED_DEADLINE_S if stored else seconds):
            raise BusError("NATS does not deliver what it has stored; is the server overloaded?")


def _show(audit: Audit, found: list[StreamAudit], passed: bool) -> None:
    screen = Screen()
    for line in audit_table(found, width=screen.width, colour=screen.colour):
        print(line)
    if not found:
        screen.print_line(
            "FAILED: no message arrived; is the relay running, and is this its configuration?", Tone.BAD
        )
        return
    screen.print_line(_total(audit, found, passed), Tone.GOOD if passed else Tone.BAD)
    if audit.last_problem:
        screen.print_line(f"last malformed message: {audit.last_problem}")


def _total(audit: Audit, found: list[StreamAudit], passed: bool) -> str:
    return (
        f"{'PASSED' if passed else 'FAILED'}: {sum(one.stored for one in found):,} read,"
        f" {sum(one.lost for one in found):,} lost,{_recovered(found)}"
        f" {sum(one.duplicated for one in found):,} duplicated,"
        f" {sum(one.out_of_order for one in found):,} out of order, {audit.malformed:,} malformed,"
        f" {latency_text(audit)}"
    )


def _recovered(found: list[StreamAudit]) -> str:
    sums = {"healed": sum(one.healed for one in found), "repaired": sum(one.repaired for one in found)}
    return "".join(f" {value:,} {name}," for name, value in sums.items() if value)


def _as_json(audit: Audit, found: list[StreamAudit], passed: bool) -> dict[str, object]:
    streams = [{**asdict(one), "lost": one.lost, "clean": one.clean} for one in found]
    return {"passed": passed, "malformed": audit.malformed, "streams": streams}
