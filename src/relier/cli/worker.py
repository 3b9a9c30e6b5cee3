"""`rl worker`."""

from __future__ import annotations

import json
import os
import sys

import click

from relier.cli import common
from relier.cli.common import Asked
from relier.cli.worker_drain import drain
from relier.cli.worker_reset import reset_
from relier.cli.worker_restart import restart_
from relier.cli.worker_status import status
from relier.protocol.identity import mint_worker_id


@click.group()
def worker() -> None:
    """Workers: start, status, drain, restart, reset."""


for command in (status, drain, restart_, reset_):
    worker.add_command(command)


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

    \b
    Example: rl worker start -A shop -Q invoices -c 4
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


def _short(arguments: tuple[str, ...], name: str) -> bool:
    """Return whether an option is there with its value attached (`-nfoo`)."""
    return any(a.startswith(name) and not a.startswith("--") for a in arguments)
