"""`rl dlq`: what is dead, as a list, by error, and one by one."""

from __future__ import annotations

import click

from relier.cli import common, dlq_purge, dlq_release, letterfilter, letters, words
from relier.cli.common import Asked
from relier.ops import deadletters, lettergroups, lettersearch
from relier.ops.lettergroups import Groups
from relier.ops.lettersearch import Filter, Listing, Position

_NONE = "No dead letters."


@click.group()
def dlq() -> None:
    """Dead letters: tasks that were given up, with the reason and the history."""


for each in (
    dlq_release.release,
    dlq_release.retry,
    dlq_release.retry_all,
    dlq_purge.purge,
):
    dlq.add_command(each)


@dlq.command("list")
@click.option("--group", is_flag=True, help="One line for each error, the most frequent first.")
@letterfilter.chosen
@click.option(
    "--limit", default=50, show_default=True, type=click.IntRange(1, 10_000), help="Most lines."
)
@click.option("--cursor", metavar="TEXT", help="Go on where an earlier list stopped.")
@common.command
def list_(asked: Asked, group: bool, chosen: Filter, limit: int, cursor: str | None) -> None:
    """List the newest dead letters, or the errors that they died of.

    Letters have one error when their task, reason, exception, the place in your code and the text
    agree, numbers, ids and quoted parts of the text left out.

    \b
    Example: rl dlq list --group
    Example: rl dlq list --task "billing.*" --newer 2h --error timeout
    """
    if group and cursor:
        raise click.UsageError("--cursor goes on in a list of letters: leave out --group")
    store = asked.broker.store
    letterfilter.check(store, chosen)
    if group:
        groups = lettergroups.groups(store, chosen, limit=limit)
        if not asked.answer(groups):
            _print_groups(groups)
        return
    after = Position.read(cursor) if cursor else None
    found = lettersearch.listing(store, chosen, limit=limit, after=after)
    if not asked.answer(found):
        _print_letters(found, chosen)


def _print_letters(found: Listing, chosen: Filter) -> None:
    console = common.console()
    wide = console.width >= words.WIDE
    rows = [
        (
            row.letter_id,
            words.ago(row.at_ms, found.now_ms),
            row.reason,
            row.name,
            *((row.queue, row.error) if wide else ()),
        )
        for row in found.rows
    ]
    headers = ("id", "died", "reason", "task", *(("queue", "error") if wide else ()))
    if rows:
        console.print(words.table(headers, rows))
    elif not found.cursor:
        console.print("No such dead letters." if found.total or chosen != Filter() else _NONE)
    if found.cursor:
        shown = f"Shown {len(found.rows):,}, looked at {found.looked_at:,} of {found.total:,}"
        console.print(f"{shown}; go on with --cursor {found.cursor}", soft_wrap=True)


def _print_groups(found: Groups) -> None:
    console = common.console()
    if not found.rows:
        console.print("No such dead letters." if found.letters else _NONE)
    else:
        letterfilter.print_groups(found.rows, found.now_ms)
    if found.looked_at < found.total:
        looked = f"{found.looked_at:,} of {found.total:,} errors"
        console.print(f"Looked at the {looked} that most letters died of.")
    elif len(found.rows) == found.limit:
        console.print(f"Cut at --limit {found.limit}.")
    if found.unread:
        console.print(
            f"{words.count(found.unread, 'letter')} of an older relier left out: written without "
            "a fingerprint, and not among the newest."
        )


@dlq.command()
@click.argument("letter_id", metavar="ID")
@click.option("--full", is_flag=True, help="All of its arguments, message and saved state.")
@common.command
def inspect(asked: Asked, letter_id: str, full: bool) -> None:
    """Show one dead letter: why, with what, and what happened to it.

    \b
    Example: rl dlq inspect 9b2f1c1e-0c1d-4b7e-9c0a-2f64b8d1a3c7 --full
    """
    broker = asked.broker
    found = deadletters.inspect(
        broker.store, letter_id, broker.keyring, files=broker.checkpoint_files, whole=full
    )
    if found is None:
        raise letters.unknown(broker.store, letter_id)
    if asked.answer(found if full else letters.shortened(found)):
        return
    letters.show(common.console(), found, full=full)
