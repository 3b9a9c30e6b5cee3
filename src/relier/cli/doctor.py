"""`rl doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from relier.cli import common, words
from relier.cli.common import Asked
from relier.ops.doctor import examination
from relier.ops.doctor.checks import FAILURE, Check
from relier.ops.doctor.examination import Examination
from relier.store import reading

if TYPE_CHECKING:
    from rich.text import Text

_NARROW = 72


@click.command()
@click.option(
    "-A", "--app", "app_name", metavar="APP", help="Also look at this Celery app and its broker."
)
@click.option("--strict", is_flag=True, help="Exit with 1 on warnings, too.")
@common.command
def doctor(asked: Asked, app_name: str | None, strict: bool) -> int:
    """Check that Redis, the fleet and the app can keep the promises.

    Looks at the server (version, persistence, eviction, memory, replicas, the rights of the user),
    the fleet (workers, how their deaths are noticed, orphaned claims, what is overdue), relier's
    settings and, with -A, the app's. Each finding comes with what to do about it. Changes nothing.

    Exits with 1 if a check failed.

    \b
    Example: rl doctor -A shop
    """
    broker, facts = asked.broker, None
    if app_name is not None:
        from relier.cli import apps

        app = apps.load_app(app_name)
        facts = apps.facts_of(app, app_name)
        if facts.installed and not asked.url:
            broker = app.relier.broker
    with reading.answered(broker.address):
        found = examination.examine(broker, facts)
    if not asked.answer(
        {
            "healthy": found.healthy,
            "warnings": found.warnings,
            "server": found.server,
            "checks": found.checks,
        }
    ):
        _show(found)
    return common.FAILED if not found.healthy or (strict and found.warnings) else 0


def _show(found: Examination) -> None:
    from rich.padding import Padding

    console = common.console()
    console.print(f"Redis at {found.server}", soft_wrap=True, markup=False)
    if console.width < _NARROW:
        for check in found.checks:
            console.print(words.styled(check.status), check.name)
            console.print(Padding(_finding(check), (0, 0, 0, 2)))
    else:
        rows = [(words.styled(each.status), each.name, _finding(each)) for each in found.checks]
        console.print(words.paragraphs(rows))
    failed = sum(check.status == FAILURE for check in found.checks)
    console.print(
        f"{words.count(len(found.checks), 'check')}, {failed} failed, "
        f"{words.count(found.warnings, 'warning')}."
    )


def _finding(check: Check) -> Text:
    from rich.text import Text

    text = Text(words.safe(check.found))
    if check.fix:
        text.append(words.safe(f"\n-> {check.fix}", lines=True), style="cyan")
    return text
