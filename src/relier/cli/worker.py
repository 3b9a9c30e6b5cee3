"""`rl worker`."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict

import click

from relier.cli import common
from relier.cli.common import Asked
from relier.cli.worker_reset import reset_
from relier.cli.worker_status import chosen, status
from relier.ops import drain as draining
from relier.ops import fleet
from relier.ops.drain import Fate, Outcome
from relier.ops.fleet import Worker
from relier.protocol.identity import mint_worker_id

_SLACK_S = 30.0
"""What a worker may take beyond its grace to hear of the order, and to end."""


@click.group()
def worker() -> None:
    """Workers: start, status, drain, reset."""


worker.add_command(status)
worker.add_command(reset_)


@worker.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
@click.option(
    "-A",
    "--app",
    default="relier.tasks.app",
    show_default=True,
    help="The Celery app, as `celery -A` takes it.",
)
@click.argument("celery_arguments", nargs=-1, type=click.UNPROCESSED)
@common.command
def start(asked: Asked, app: str, celery_arguments: tuple[str, ...]) -> None:
    """Run `celery -A APP worker` in place of this command.

    Whatever else is given goes to Celery as it is: -Q, -c, --pool, --include ... Unless told
    otherwise, the worker gets a node name that no other has, and logs at RELIER_LOG_LEVEL.
    """
    given = {argument.partition("=")[0] for argument in celery_arguments}
    line = [sys.executable, "-m", "celery", "-A", app, "worker", *celery_arguments]
    if not given & {"-n", "--hostname"} and not _short(celery_arguments, "-n"):
        line += ["--hostname", f"worker-{mint_worker_id()[:6]}@%h"]
    if not given & {"-l", "--loglevel"} and not _short(celery_arguments, "-l"):
        line += ["--loglevel", asked.settings.log_level]
    environment = dict(os.environ)
    if asked.url:
        asked.broker.store.check_server()
        environment["RELIER_REDIS_URL"] = asked.url
    # `celery` finds apps beside it; `python -m celery` does the same from the current folder.
    if asked.as_json:
        click.echo(json.dumps({"command": line}))
    sys.stdout.flush()
    os.execve(line[0], line, environment)


@worker.command()
@click.argument("name", metavar="[WORKER]", required=False)
@click.option(
    "--timeout",
    "grace_s",
    metavar="SECONDS",
    type=click.FloatRange(0, 86_400),
    help="How long what runs may take; else the worker's RELIER_GRACEFUL_SHUTDOWN_TIMEOUT.",
)
@common.command
def drain(asked: Asked, name: str | None, grace_s: float | None) -> int:
    """Have a worker, or every one, finish what it runs, hand over the rest, and end.

    It claims no more and gives back what it has not started at once. Prints what becomes of each
    task. WORKER is a node name, its part before the @, or a worker id.
    """
    store = asked.broker.store
    found = fleet.workers(store)
    members = [each for each in _chosen(found, name) if not each.dying]
    order = draining.Draining(store, members, grace_s)
    slowest_s = max((each.grace_s for each in members), default=0.0) if grace_s is None else grace_s
    for fate in order.follow(slowest_s + _SLACK_S):
        _say_fate(asked, fate)
    _say_outcome(asked, order.outcome)
    return 0 if order.outcome.clean else common.FAILED


def _chosen(found: tuple[Worker, ...], name: str | None) -> tuple[Worker, ...]:
    """Return the workers to drain; programs that only consume a queue by kombu have no drain."""
    return chosen(tuple(each for each in found if each.pool != "none"), name)


def _say_fate(asked: Asked, fate: Fate) -> None:
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


def _short(arguments: tuple[str, ...], name: str) -> bool:
    """Return whether an option is there with its value attached (`-nfoo`)."""
    return any(a.startswith(name) and not a.startswith("--") for a in arguments)
