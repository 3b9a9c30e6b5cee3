"""`rl worker status`."""

from __future__ import annotations

import click

from relier.cli import common, words
from relier.cli.common import Asked
from relier.ops import drain, fleet, workers
from relier.ops.fleet import Worker
from relier.ops.workers import WorkerRow


@click.command()
@click.argument("name", metavar="[WORKER]", required=False)
@common.command
def status(asked: Asked, name: str | None) -> None:
    """Show the workers: what each does, how long ago it beat, where it runs, which versions.

    WORKER is a node name, its part before the @, or a worker id. The lease is how long a worker may
    be silent before others take it for dead.

    \b
    Example: rl worker status --json
    """
    store = asked.broker.store
    found = workers.status(store, chosen(fleet.workers(store), name))
    if asked.answer({"workers": found}):
        return
    console = common.console()
    if not found:
        console.print("There are no workers.")
        return
    if name is not None:
        for row in found:
            console.print(words.facts(_facts(row)))
        return
    wide = console.width >= words.WIDE
    headers = ("worker", "state", "running", "done", "failed", "beat", "up")
    more = ("claimed", "pid", "pool", "queues", "relier") if wide else ()
    console.print(words.table((*headers, *more), [_row(row, wide=wide) for row in found]))


def chosen(found: tuple[Worker, ...], name: str | None) -> tuple[Worker, ...]:
    """Return the workers that go by a name; all without one.

    Raises:
        NotFoundError: there is none.
    """
    if name is None:
        return found
    members = tuple(drain.named(found, name))
    if not members:
        names = (each.name for each in found)
        raise common.unknown("worker", name, names, "`rl worker status` shows those there are")
    return members


def _row(row: WorkerRow, *, wide: bool) -> tuple[object, ...]:
    more = (f"{row.claimed:,}", row.pid, _pool(row), ",".join(row.queues), row.relier or "-")
    return (
        row.name,
        words.styled(row.state),
        f"{row.running:,}",
        f"{row.done:,}",
        f"{row.failed:,}",
        words.ago(0, row.beat_age_ms),
        words.span(row.uptime_ms),
        *(more if wide else ()),
    )


def _pool(row: WorkerRow) -> str:
    return f"{row.pool} x{row.size}" if row.size else row.pool


def _facts(row: WorkerRow) -> list[tuple[str, object]]:
    lease = f", lease {row.lease_s:g} s" if row.lease_s else ""
    return [
        ("worker", row.name),
        ("id", row.worker_id),
        ("state", words.styled(row.state)),
        ("running", f"{row.running:,}"),
        ("claimed", f"{row.claimed:,}"),
        ("done", f"{row.done:,}"),
        ("failed", f"{row.failed:,}"),
        ("last beat", f"{words.ago(0, row.beat_age_ms)}{lease}"),
        ("up", words.span(row.uptime_ms)),
        ("host", row.host),
        ("pid", row.pid),
        ("pool", _pool(row)),
        ("queues", ", ".join(row.queues)),
        ("relier", row.relier),
        ("celery", row.celery),
    ]
