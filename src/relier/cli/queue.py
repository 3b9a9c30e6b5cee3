"""`rl queue`."""

from __future__ import annotations

import getpass
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from relier.cli import common, words
from relier.cli.common import Asked
from relier.ops import purging, queues
from relier.ops.queues import QueueRow
from relier.store.pausing import Pause


@click.group()
def queue() -> None:
    """Queues: how much waits, and how fast it moves; pause, resume, purge."""


@queue.command("list")
@common.command
def list_(asked: Asked) -> None:
    """List the queues: what each holds, its oldest, what comes in and ends, who takes from it.

    The age is that of the task which is next. The rates are those of the last 10 seconds, in a
    busy queue of as many as its latest 1,000 events reach back (--json says how many).

    \b
    Example: rl queue list
    """
    found = queues.listing(asked.broker.store)
    if asked.answer(found):
        return
    console = common.console()
    if not found.rows:
        console.print("No queues: nothing was dispatched yet, and no worker runs.")
        return
    wide = console.width >= words.WIDE
    headers = ("queue", "waiting", "oldest", "in", "out", "running", "dead", "workers", "state")
    more = ("scheduled", "claimed", "to replay") if wide else ()
    rows = [_row(row, found.now_ms, wide=wide) for row in found.rows]
    console.print(words.table((*headers[:2], *more, *headers[2:]), rows))


@queue.command()
@click.argument("name", metavar="QUEUE")
@click.option("--reason", default="", metavar="TEXT", help="Why, for whoever looks next.")
@click.option("--by", metavar="NAME", help="Who you are; else your user name and this host's.")
@common.command
def pause(asked: Asked, name: str, reason: str, by: str | None) -> None:
    """Have no worker start a task of this queue any more, at once; what runs goes on.

    What is dispatched waits, what workers hold and have not begun goes back, and what follows from
    tasks that have ended is still sent. It lasts until `rl queue resume`. Workers without relier
    know nothing of it.

    \b
    Example: rl queue pause invoices --reason "the printer is on fire"
    """
    store = asked.broker.store
    _must_be_known(asked, name)
    done = queues.pause(store, name, by or _myself(), reason)
    if asked.answer(done):
        return
    console = common.console()
    if not done.paused:
        console.print(words.safe(f"{name} was paused before: {_said(done.pause)}."))
        return
    runs = f"{words.count(done.running, 'task')} of it still {_run(done.running)}"
    console.print(words.safe(f"Paused {name}. {runs}; `rl queue resume {name}` lets it go on."))


@queue.command()
@click.argument("name", metavar="QUEUE")
@common.command
def resume(asked: Asked, name: str) -> None:
    """Let a paused queue go on, at once.

    \b
    Example: rl queue resume invoices
    """
    _must_be_known(asked, name)
    done = queues.resume(asked.broker.store, name)
    if asked.answer(done):
        return
    before = f" It was paused {_said(done.pause)}." if done.pause else ""
    said = f"Resumed {name}.{before}" if done.resumed else f"{name} was not paused."
    common.console().print(words.safe(said), soft_wrap=True)


@queue.command()
@click.argument("name", metavar="QUEUE")
@click.option("--scheduled", is_flag=True, help="What is not due yet, too: retries among it.")
@click.option("--revoke", is_flag=True, help="Have workers store REVOKED as the result of each.")
@click.option("--dry-run", is_flag=True, help="Say what would go, and touch nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@common.command
def purge(asked: Asked, name: str, scheduled: bool, revoke: bool, dry_run: bool, yes: bool) -> None:
    """Remove what waits in a queue: as many messages as there are now, the oldest first.

    Each task ends there and then, and its timeline says "purged". What runs, what workers hold and
    what waits to be retried stays (--scheduled takes the last, too); pause the queue first if no
    more of it is to run.

    A chord whose part is purged is not left waiting: workers conclude such a part, and each step of
    a chain, as revoked, so that the chord fails and its errbacks are called. Whoever waits for the
    result of any other purged task waits in vain; with --revoke workers store REVOKED for each,
    which takes them as long as as many empty tasks.

    \b
    Example: rl queue purge invoices --dry-run
    """
    store = asked.broker.store
    _must_be_known(asked, name)
    if not dry_run:
        found = purging.preview(store, name, scheduled=scheduled)
        common.sure(asked, yes, f"This ends {words.count(found.removed, 'task')} of {name}.")
        with _counting(asked) as on_progress:
            found = purging.purge(
                store, name, scheduled=scheduled, revoke=revoke, on_progress=on_progress
            )
    else:
        found = purging.preview(store, name, scheduled=scheduled)
    if asked.answer(found):
        return
    console = common.console()
    removed = words.count(found.removed, "message")
    of = f"{found.waiting:,} waiting, {found.scheduled:,} scheduled"
    if dry_run:
        console.print(words.safe(f"Would purge {removed} of {name}: {of}."), soft_wrap=True)
        if found.names:
            console.print(words.table(("task", "in a sample"), found.names.items()))
        return
    console.print(words.safe(f"Purged {removed} of {name}: {of}."), soft_wrap=True)
    if found.revoked:
        console.print(f"Workers conclude {words.count(found.revoked, 'task')} as revoked.")
    if found.left:
        console.print(f"{found.left:,} still wait: workers are quicker. Pause the queue first.")


@contextmanager
def _counting(asked: Asked) -> Iterator[Callable[[int], None]]:
    """Show a person how far it is: a million messages take a minute or two."""
    console = common.console()
    if asked.as_json or not console.is_terminal:
        yield lambda _: None
        return
    with console.status("Purging") as status:
        yield lambda removed: status.update(f"Purged {removed:,} so far")


def _must_be_known(asked: Asked, name: str) -> None:
    store = asked.broker.store
    if not queues.is_known(store, name):
        hint = "`rl queue list` shows those there are"
        raise common.unknown("queue", name, queues.known(store), hint)


def _row(row: QueueRow, now_ms: int, *, wide: bool) -> tuple[object, ...]:
    more = (f"{row.scheduled:,}", f"{row.claimed:,}", f"{row.replay:,}") if wide else ()
    state = words.styled("open")
    if row.paused:
        when = f" {words.ago(row.paused.at_ms, now_ms)}" if row.paused.at_ms else ""
        state = words.styled("paused")
        state.append(words.safe(f"{when}{_by(row.paused)}"), style="")
    return (
        row.name,
        f"{row.waiting:,}",
        *more,
        words.span(row.oldest_ms),
        f"{row.rate.in_per_s:,.1f}/s",
        f"{row.rate.out_per_s:,.1f}/s",
        f"{row.running:,}",
        f"{row.dead:,}",
        f"{row.consumers:,}",
        state,
    )


def _said(pause: Pause) -> str:
    since = f"since {words.clock(pause.at_ms)[:19]}" if pause.at_ms else "for a time not known"
    return f"{since}{_by(pause)}"


def _by(pause: Pause) -> str:
    by = f" by {pause.by}" if pause.by else ""
    return f"{by}: {pause.reason}" if pause.reason else by


def _run(count: int) -> str:
    return "runs" if count == 1 else "run"


def _myself() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = "somebody"
    return f"{user}@{socket.gethostname()}"
