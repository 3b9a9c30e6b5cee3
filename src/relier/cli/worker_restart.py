"""`rl worker restart`."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from relier.cli import common, words
from relier.cli.common import Asked
from relier.cli.worker_drain import SLACK_S, grace, say_fate
from relier.cli.worker_status import chosen
from relier.errors import RelierError
from relier.ops import fleet, restart
from relier.ops.fleet import Worker
from relier.ops.restart import Restarted, Restarting

_START_S = 60.0


@click.command("restart")
@click.argument("name", metavar="[WORKER]", required=False)
@click.option("--all", "everyone", is_flag=True, help="All workers, one after the other.")
@grace
@common.command
def restart_(asked: Asked, name: str | None, everyone: bool, grace_s: float | None) -> int:
    """Have a worker drain and start again: new code, new settings of its files, the same command.

    It drains as with `rl worker drain`; then its process begins anew in place, under the same pid,
    and joins under another id. Whoever supervises it notices nothing. Its environment variables
    stay what they were. A worker inside another program cannot do this, nor one on macOS. With
    several workers the next one waits until the last is back; it ends at the first that is not.

    \b
    Example: rl worker restart printer-3 --timeout 10
    """
    if (name is None) is not everyone:
        raise click.UsageError("Name a worker, or say --all.")
    store = asked.broker.store
    found = tuple(each for each in fleet.workers(store) if each.pool != "none" and not each.dying)
    members = chosen(found, name)
    _must_be_able(members)
    for member in members:
        order = Restarting(store, member, grace_s)
        drain_s = (member.grace_s if grace_s is None else grace_s) + SLACK_S
        for fate in order.follow(drain_s, _START_S):
            say_fate(asked, fate)
        _say(asked, order.outcome)
        if not order.outcome.done:
            return common.FAILED
    if not members and not asked.as_json:
        click.echo("There are no workers.")
    return 0


def _must_be_able(members: tuple[Worker, ...]) -> None:
    """Refuse before anything is done.

    Raises:
        RelierError: one of them cannot start itself again.
    """
    unable = [f"{each.name}: {why}" for each in members if (why := restart.cannot(each))]
    if unable:
        raise RelierError(
            f"nothing was restarted, for it cannot be done from afar ({'; '.join(unable)}). "
            "Use `rl worker drain`, and have the worker's supervisor start it"
        )


def _say(asked: Asked, done: Restarted) -> None:
    if asked.as_json:
        click.echo(json.dumps({**asdict(done), "done": done.done}))
        return
    drained = done.drained
    counts = f"{drained.handed_off} handed off. {drained.lost} lost."
    if done.came_back_as:
        back = f"back as {done.came_back_as} after {words.span(done.took_s * 1000)}"
    else:
        back = "not back yet: see its log"
    click.echo(words.safe(f"{done.name} is {back}. {counts}"))
    for each in drained.unfinished:
        click.echo(words.safe(f"{each} has not accounted for all that it held."))
