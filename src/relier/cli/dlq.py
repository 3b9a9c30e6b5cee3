"""`rl dlq`."""

from __future__ import annotations

import click

from relier.cli import common, words
from relier.cli.common import Asked, NotFoundError
from relier.ops import deadletters, fleet

_RAW_SHOWN = 2000


@click.group()
def dlq() -> None:
    """Dead letters: tasks that were given up, with the reason and the history."""


@dlq.command("list")
@click.option("--queue", metavar="QUEUE", help="Only this queue.")
@click.option(
    "--limit", default=50, show_default=True, type=click.IntRange(1, 10_000), help="Most lines."
)
@common.command
def list_(asked: Asked, queue: str | None, limit: int) -> None:
    """List the newest dead letters."""
    found = deadletters.listing(asked.broker.store, queue=queue, limit=limit)
    if asked.answer(found):
        return
    console = common.console()
    if not found.rows:
        console.print("No dead letters.")
        return
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
    console.print(words.table(headers, rows))
    if found.total > len(found.rows):
        console.print(f"{len(found.rows)} of {found.total}; --limit shows more.")


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
