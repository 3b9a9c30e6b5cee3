"""`rl tasks`."""

from __future__ import annotations

import click

from relier.cli import common, live, task_detail, task_logs, task_orders, words
from relier.cli.common import Asked, NotFoundError
from relier.ops import inflight, inspection
from relier.ops import tasks as questions
from relier.ops.places import STATES


@click.group()
def tasks() -> None:
    """Tasks: where they are, and what happened to them."""


tasks.add_command(task_orders.cancel)
tasks.add_command(task_orders.retry)
tasks.add_command(task_logs.logs)


@tasks.command("list")
@click.option(
    "--state", "states", multiple=True, type=click.Choice(STATES), help="May be repeated."
)
@click.option("--queue", metavar="QUEUE", help="Only this queue.")
@click.option(
    "--limit", default=50, show_default=True, type=click.IntRange(1, 10_000), help="Most lines."
)
@common.command
def list_(asked: Asked, states: tuple[str, ...], queue: str | None, limit: int) -> None:
    """List tasks by place: those in hand first, then the waiting, the dead, the last to end.

    \b
    Example: rl tasks list --state running --state queued
    """
    found = questions.listing(asked.broker.store, states=states, queue=queue, limit=limit)
    if asked.answer(found):
        return
    console = common.console()
    wide = console.width >= words.WIDE
    rows = [
        (
            words.styled(row.state),
            row.task_id,
            words.ago(row.at_ms, found.now_ms),
            row.name or "-",
            *((row.queue, f"{row.attempt or '-'}", row.worker or "-") if wide else ()),
        )
        for row in found.rows
    ]
    if rows:
        headers = ("state", "id", "when", "task", *(("queue", "run", "worker") if wide else ()))
        console.print(words.table(headers, rows))
    totals = "  ".join(f"{state} {count:,}" for state, count in found.totals.items())
    console.print(f"In Redis now: {totals}", soft_wrap=True)
    if len(found.rows) == found.limit:
        console.print(f"Cut at --limit {found.limit}.")


@tasks.command("inflight")
@click.option("--follow", "-f", is_flag=True, help="Stay and keep the view fresh; Ctrl-C ends it.")
@click.option("--worker", metavar="WORKER", help="Only this worker (name or id).")
@click.option(
    "--limit", default=200, show_default=True, type=click.IntRange(1, 10_000), help="Most tasks."
)
@common.command
def inflight_(asked: Asked, follow: bool, worker: str | None, limit: int) -> None:
    """Show what every worker has in hand at this moment.

    \b
    Example: rl tasks inflight --follow
    """

    def look() -> inflight.Snapshot:
        return inflight.snapshot(asked.broker, worker=worker, limit=limit)

    first = look()
    if worker is not None and not first.workers:
        raise NotFoundError(
            f"there is no worker {worker}: `rl tasks inflight` shows those there are"
        )
    if not follow:
        if not asked.answer(first):
            console = common.console()
            console.print(live.picture(first, console))
        return
    live.follow(look, as_json=asked.as_json)


@tasks.command()
@click.argument("task_id", metavar="ID")
@click.option("--full", is_flag=True, help="All of its arguments and its message, however long.")
@common.command
def inspect(asked: Asked, task_id: str, full: bool) -> None:
    """Show everything known of one task: its record, its place, its timeline, its result.

    \b
    Example: rl tasks inspect 9b2f1c1e-0c1d-4b7e-9c0a-2f64b8d1a3c7 --full
    """
    store = asked.broker.store
    found = inspection.inspect(store, task_id, asked.broker.keyring, whole=full)
    if found is None:
        raise task_logs.unknown(store, task_id)
    if not asked.answer(found if full else task_detail.shortened(found)):
        task_detail.show(common.console(), found, full=full)
