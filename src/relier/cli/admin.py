"""`rl admin`."""

from __future__ import annotations

import click

from relier.cli import admission, common, words
from relier.cli.common import Asked, NotFoundError
from relier.ops import forgetting
from relier.ops.forgetting import Forgotten


@click.group()
def admin() -> None:
    """Rare orders: purge-locks, reset-admission."""


admin.add_command(admission.reset, "reset-admission")


@admin.command("purge-locks")
@click.option("--results", is_flag=True, help="Forget results, too: their calls may run again.")
@click.option("--task", metavar="NAME", help="Only the idempotency keys of this task.")
@click.option("--key", metavar="KEY", help="Only the idempotency_lock of this key.")
@click.option("--dry-run", is_flag=True, help="Say what would go, and touch nothing.")
@click.option("--yes", is_flag=True, help="Do not ask, with --results.")
@common.command
def purge_locks(
    asked: Asked, results: bool, task: str | None, key: str | None, dry_run: bool, yes: bool
) -> None:
    """Let go of idempotency keys and locks that nobody owns any more.

    relier does so by itself as soon as an owner ends or dies; this is the broom for what a server
    that lost its last writes left behind, and it wakes the calls that wait there. What a running
    task or block owns always stays: two would run at once. A lock outside any task is a lease; when
    its process dies it ends by itself within RELIER_HEARTBEAT_TTL.

    With --results it also forgets what is done. That ends "once" for those calls before their time:
    the next one with the same arguments, or the next block with the same key, runs again.

    It walks the whole keyspace in small steps, which takes a second or two for a million keys.

    \b
    Example: rl admin purge-locks --results --task shop.charge --dry-run
    """
    if task is not None and key is not None:
        raise click.UsageError("Give --task or --key, not both.")
    store = asked.broker.store
    if results and not dry_run:
        what = f"task {task}" if task is not None else f"key {key}" if key is not None else "all"
        question = f"What is done ({what}) may run again when it is asked for again."
        common.sure(asked, yes, question)
    found = forgetting.purge(store, results=results, task=task, key=key, dry_run=dry_run)
    if (task or key) and not found.owned + found.orphans + found.results:
        of = f"the task {task}" if task is not None else f"the lock {key}"
        raise NotFoundError(f"there is no key of {of}: keys end with their time to live")
    if not asked.answer(found):
        click.echo(words.safe(_said(found)))


def _said(found: Forgotten) -> str:
    would = "Would forget" if found.dry_run else "Forgot"
    kept = [f"{words.count(found.owned, 'key')} of what runs now"] if found.owned else []
    gone = [f"{words.count(found.orphans, 'key')} that nobody owns"]
    (gone if found.results_too else kept).append(words.count(found.results, "result"))
    left = f"; {' and '.join(kept)} stay" if kept else ""
    return f"{would} {' and '.join(gone)}{left}."
