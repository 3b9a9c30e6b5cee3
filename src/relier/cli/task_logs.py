"""`rl tasks logs`."""

from __future__ import annotations

from collections.abc import Iterator

import click
import msgspec

from relier.cli import common, words
from relier.cli.common import Asked, NotFoundError
from relier.ops import nearest
from relier.ops.events import CLAIMED, Event
from relier.ops.following import Follower
from relier.ops.steps import said
from relier.store.client import Store


@click.command()
@click.argument("task_id", metavar="ID")
@click.option("--follow", "-f", is_flag=True, help="Stay until the task has ended or is dead.")
@common.command
def logs(asked: Asked, task_id: str, follow: bool) -> None:
    """Print a task's way, one move a line; with --json one object a line.

    --follow waits for each further move and ends by itself, with 0, when the task has ended or is
    dead. Ctrl-C ends it with 130.

    \b
    Example: rl tasks logs 1f0c7a52-5d1c-4f7a-9d5e-0a5c3b8f6e21 --follow
    """
    store = asked.broker.store
    with common.terminable():
        follower = Follower(store, task_id)
        if not follower.known:
            raise unknown(store, task_id)
        before: Event | None = None
        for event in _events(follower, follow=follow):
            what = said(event, before)
            if asked.as_json:
                facts = {**msgspec.to_builtins(event), "what": what}
                click.echo(msgspec.json.encode(facts).decode())
            else:
                click.echo(f"{words.clock(event.at_ms)[:23]}  {words.safe(what)}")
            before = event if event.kind != CLAIMED else before


def _events(follower: Follower, *, follow: bool) -> Iterator[Event]:
    yield from follower.so_far()
    if follow:
        yield from follower.coming()


def unknown(store: Store, task_id: str) -> NotFoundError:
    """Return what to raise for a task that nobody knows."""
    known = nearest.known_ids(store)
    near = nearest.beginning(task_id, known)
    if near:
        return NotFoundError(f"there is no task {task_id}: did you mean {' or '.join(near)}?")
    return common.unknown(
        "task",
        task_id,
        known,
        "the record of an ended task is kept for an hour. Check the id and --url; `rl tasks list` "
        "shows what there is",
    )
