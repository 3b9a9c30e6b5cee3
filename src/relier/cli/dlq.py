"""`rl dlq`."""

from __future__ import annotations

import click

from relier.cli import common, letterfilter, words
from relier.cli.common import Asked, NotFoundError
from relier.ops import deadletters, fleet, lettergroups, lettersearch
from relier.ops.lettergroups import Groups
from relier.ops.lettersearch import Filter, Listing, Position

_RAW_SHOWN = 2000


@click.group()
def dlq() -> None:
    """Dead letters: tasks that were given up, with the reason and the history."""


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
    if group:
        groups = lettergroups.groups(store, chosen, limit=limit)
        if not asked.answer(groups):
            _print_groups(groups)
        return
    after = Position.read(cursor) if cursor else None
    found = lettersearch.listing(store, chosen, limit=limit, after=after)
    if not asked.answer(found):
        _print_letters(found)


def _print_letters(found: Listing) -> None:
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
        console.print("No dead letters." if not found.total else "No such dead letters.")
    if found.cursor:
        shown = f"Shown {len(found.rows):,}, looked at {found.looked_at:,} of {found.total:,}"
        console.print(f"{shown}; go on with --cursor {found.cursor}", soft_wrap=True)


def _print_groups(found: Groups) -> None:
    console = common.console()
    if not found.rows:
        console.print("No dead letters." if not found.letters else "No such dead letters.")
    else:
        wide = console.width >= words.WIDE
        rows = [
            (
                f"{each.count:,}",
                words.ago(each.first_ms, found.now_ms),
                words.ago(each.last_ms, found.now_ms),
                each.reason,
                each.task,
                *((each.error,) if wide else ()),
                each.fingerprint,
                each.example_id,
            )
            for each in found.rows
        ]
        headers = ("count", "first", "last", "reason", "task", *(("error",) if wide else ()))
        console.print(words.table((*headers, "fingerprint", "example"), rows))
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
@common.command
def inspect(asked: Asked, letter_id: str) -> None:
    """Show one dead letter: why, its message, and what happened to it."""
    store = asked.broker.store
    found = deadletters.inspect(store, letter_id, asked.broker.keyring)
    if found is None:
        raise _unknown(letter_id)
    if asked.answer(found):
        return
    names = {member.worker_id: member.name for member in fleet.workers(store)}
    console = common.console()
    pairs = [
        ("dead letter", found.letter_id),
        ("task", found.name),
        ("queue", found.queue),
        ("died", f"{words.clock(found.at_ms)} ({words.ago(found.at_ms, found.now_ms)})"),
        ("reason", found.reason),
        ("error", found.error),
        ("args", found.args),
        ("kwargs", found.kwargs if found.kwargs != "{}" else ""),
        ("retries", found.retries or ""),
        ("schema version", found.schema_version or ""),
        ("signature", words.signature(found.signature)),
        ("size", f"{found.size_bytes:,} bytes"),
        ("checkpoint", words.checkpoint(found.checkpoint, found.now_ms)),
        ("message", "" if found.readable else found.raw[:_RAW_SHOWN]),
    ]
    console.print(words.facts(pairs))
    if found.traceback:
        shown = words.safe(found.traceback.rstrip(), lines=True)
        console.print("\n" + shown, markup=False, soft_wrap=True)
    if found.timeline:
        console.print()
        console.print(words.timeline(found.timeline, names))
    console.print()
    hint = "" if found.readable else " --raw"
    console.print(
        f"`rl dlq release {found.letter_id}{hint}` gives it another life.", soft_wrap=True
    )


@dlq.command()
@click.argument("letter_id", metavar="ID")
@click.option("--raw", is_flag=True, help="Put a message that cannot be read back as it came.")
@click.option("--trust", is_flag=True, help="Vouch for a message whose signature does not verify.")
@common.command
def release(asked: Asked, letter_id: str, raw: bool, trust: bool) -> int:
    """Put a dead letter back into its queue, as a new life of its task."""
    broker = asked.broker
    found = deadletters.release(broker.store, letter_id, broker.keyring, raw=raw, trust=trust)
    if found is None:
        raise _unknown(letter_id)
    if asked.answer(found):
        return 0 if found.released else common.FAILED
    if found.alive:
        raise NotFoundError(
            f"{letter_id} was dispatched anew and lives: wait until it has ended "
            f"(`rl tasks inspect {letter_id}`), then release the letter"
        )
    if not found.released:
        raise NotFoundError(f"{letter_id} has just been released by somebody else")
    common.console().print(
        f"Released {found.name or 'a message'} {letter_id} to queue {found.queue}.", soft_wrap=True
    )
    return 0


def _unknown(letter_id: str) -> NotFoundError:
    return NotFoundError(
        f"there is no dead letter {letter_id}: `rl dlq list` shows those there are, "
        f"`rl tasks inspect {letter_id}` where else the task may be"
    )
