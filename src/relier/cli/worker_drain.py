"""`rl worker drain`."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from relier.cli import common
from relier.cli.common import Asked
from relier.cli.worker_status import chosen
from relier.ops import drain as draining
from relier.ops import fleet
from relier.ops.drain import Fate, Outcome
from relier.ops.fleet import Worker

SLACK_S = 30.0
"""What a worker may take beyond its grace to hear of the order, and to end."""

grace = click.option(
    "--timeout",
    "grace_s",
    metavar="SECONDS",
    type=common.FloatRange(0, 86_400),
    help="How long what runs may take; else the worker's RELIER_GRACEFUL_SHUTDOWN_TIMEOUT.",
)
"""The option of every command that has workers drain."""


@click.command()
@click.argument("name", metavar="[WORKER]", required=False)
@grace
@common.command
def drain(asked: Asked, name: str | None, grace_s: float | None) -> int:
    """Have a worker, or every one, finish what it runs, hand over the rest, and end.

    It claims no more and gives back what it has not started at once. Prints what becomes of each
    task. WORKER is a node name, its part before the @, or a worker id.

    \b
    Example: rl worker drain worker-3 --timeout 10
    """
    store = asked.broker.store
    found = fleet.workers(store)
    members = [each for each in _chosen(found, name) if not each.dying]
    order = draining.Draining(store, members, grace_s)
    slowest_s = max((each.grace_s for each in members), default=0.0) if grace_s is None else grace_s
    for fate in order.follow(slowest_s + SLACK_S):
        say_fate(asked, fate)
    _say_outcome(asked, order.outcome)
    return 0 if order.outcome.clean else common.FAILED


def _chosen(found: tuple[Worker, ...], name: str | None) -> tuple[Worker, ...]:
    """Return the workers to drain; programs that only consume a queue by kombu have no drain."""
    return chosen(tuple(each for each in found if each.pool != "none"), name)


def say_fate(asked: Asked, fate: Fate) -> None:
    if asked.as_json:
        click.echo(json.dumps(asdict(fate)))
    else:
        click.echo(f"{fate.what:<10}  {fate.name or '-'}  {fate.task_id}  ({fate.worker})")


def _say_outcome(asked: Asked, outcome: Outcome) -> None:
    if asked.as_json:
        click.echo(json.dumps({**asdict(outcome), "clean": outcome.clean}))
        return
    if not outcome.workers:
        click.echo("There are no workers.")
        return
    counts = f"{outcome.handed_off} handed off. {outcome.lost} lost."
    if outcome.clean:
        click.echo(f"Clean exit. {counts}")
        return
    click.echo(f"No clean exit. {counts}")
    for name in outcome.unfinished:
        click.echo(
            f"{name} has not accounted for all that it held: if it is dead, others bring its "
            "tasks back; see `rl tasks inflight`"
        )
