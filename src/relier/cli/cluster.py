"""`rl cluster`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from relier.cli import common, words
from relier.cli.cluster_lines import Lines
from relier.cli.cluster_up import folder_option, say_account, say_facts, up
from relier.cli.common import Asked, NotFoundError
from relier.errors import RelierError

if TYPE_CHECKING:
    from relier.cluster.control import Facts
    from relier.cluster.folder import Folder

_LOOK_AGAIN_S = 0.2


@click.group()
def cluster() -> None:
    """A server, workers and a resurrector on this machine: up, status, scale, logs, down."""


cluster.add_command(up)


def _nobody(folder: Folder) -> NotFoundError:
    return NotFoundError(
        f"no cluster runs from {folder.path}: start one with `rl cluster up`, or name its folder "
        "with --dir"
    )


def _of(folder: Folder, ask: Callable[[str], Facts | None]) -> Facts:
    """Return the running cluster's answer.

    Raises:
        NotFoundError: there is none.
    """
    found = ask(folder.socket) if folder.exists else None
    if found is None:
        raise _nobody(folder)
    return found


@cluster.command()
@folder_option
@common.offline
def status(asked: Asked, path: Path) -> int:
    """Show each process of the cluster: name, pid, state, restarts, uptime; and the server.

    Exits with 0 when all of them work, with 1 when one does not, yet or any more.

    \b
    Example: rl cluster status
    """
    from relier.cluster import control
    from relier.cluster.folder import Folder

    found = _of(Folder(path), control.status)
    if not asked.answer(found):
        say_facts(found)
    return 0 if found.ready else common.FAILED


@cluster.command()
@click.argument("size", metavar="N", type=click.IntRange(1, 256))
@folder_option
@common.offline
def scale(asked: Asked, size: int, path: Path) -> int:
    """Run N workers: start more, or have those with the highest numbers drain.

    One that drains finishes what it runs within its grace, and hands the rest over. Workers that
    were given up are tried again. Returns when it is done; Ctrl-C stops the waiting only.

    \b
    Example: rl cluster scale 4
    """
    from relier.cluster import control
    from relier.cluster.folder import Folder

    folder = Folder(path)
    found = _of(folder, lambda address: control.scale(address, size))
    while not found.ready and found.size == size and not found.ending:
        failed = [part for part in found.parts if part.state == "failed"]
        if failed:
            break
        time.sleep(_LOOK_AGAIN_S)
        found = _of(folder, control.status)
    if not asked.answer(found):
        say_facts(found)
    return 0 if found.ready else common.FAILED


@cluster.command("logs")
@click.argument("name", metavar="[NAME]", required=False)
@click.option("--follow", "-f", is_flag=True, help="Go on as long as the cluster runs.")
@click.option(
    "--lines",
    "-n",
    default=50,
    show_default=True,
    type=click.IntRange(0, 100_000),
    metavar="COUNT",
    help="How many of the last lines, of each log.",
)
@folder_option
@common.offline
def logs_(asked: Asked, name: str | None, follow: bool, lines: int, path: Path) -> None:
    """Print what the processes have logged; NAME is worker-1, server, resurrector or cluster.

    The logs of a cluster that has ended are still there. Each is in a file of its own in the state
    folder; from 16 MB on the older part is set aside.

    \b
    Example: rl cluster logs worker-1 --follow
    """
    from relier.cluster import control, logs
    from relier.cluster.folder import Folder

    folder = Folder(path)
    known = logs.names(folder.logs)
    if not known:
        raise _nobody(folder)
    if name is not None and name not in known:
        raise common.unknown("log", name, known, f"there are {', '.join(known)}")
    shown = logs.Tail(folder.logs, None if name is None else {name}, lines)
    printed = Lines(asked.as_json, max(map(len, known)))
    with common.terminable():
        while True:
            runs = follow and control.status(folder.socket) is not None
            for line in shown.lines():
                printed.say(line)
            if not runs:
                return
            time.sleep(_LOOK_AGAIN_S)


@cluster.command()
@click.option("--purge", is_flag=True, help="Remove the server's data, too: every task in it.")
@click.option("--yes", is_flag=True, help="Do not ask, with --purge.")
@folder_option
@common.offline
def down(asked: Asked, purge: bool, yes: bool, path: Path) -> int:
    """End the cluster: workers drain, then the rest; the tasks are kept for the next `up`.

    Returns when all has ended. With --purge the server's data folder is removed then.

    \b
    Example: rl cluster down
    """
    from relier.cluster import control
    from relier.cluster.folder import Folder

    folder = Folder(path)
    if purge:
        common.sure(asked, yes, f"Remove all tasks in {folder.data}?")
    account = control.end(folder.socket, purge=purge) if folder.exists else None
    if account is not None:
        if purge and folder.data.exists():
            raise RelierError(f"{folder.data} could not be removed wholly: see its rights")
        say_account(asked, account)
        return 0 if account.clean else common.FAILED
    if not (purge and folder.data.exists()):
        raise _nobody(folder)
    folder.own()
    folder.purge()
    if folder.data.exists():
        raise RelierError(f"{folder.data} could not be removed wholly: see its rights")
    _say_purged(asked, {"purged": str(folder.data)})
    return 0


def _say_purged(asked: Asked, facts: dict[str, Any]) -> None:
    if asked.as_json:
        click.echo(json.dumps(facts))
    else:
        click.echo(words.safe(f"No cluster ran; removed {facts['purged']}."))
