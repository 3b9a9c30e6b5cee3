"""`rl cluster up`, and how a cluster is shown."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from relier import config
from relier.cli import common, words
from relier.cli.cluster_lines import Lines, Printer
from relier.cli.common import Asked
from relier.errors import ConfigurationError, RelierError

if TYPE_CHECKING:
    from relier.cluster.control import Account, Facts
    from relier.cluster.folder import Folder
    from relier.cluster.launch import Wish

_READY_WITHIN_S = 90.0
_LOOK_AGAIN_S = 0.1
_PATIENCE_S = 1.0


def folder_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the option that names the state folder."""
    return click.option(
        "--dir",
        "path",
        default=".relier",
        show_default=True,
        type=click.Path(path_type=Path, file_okay=False),
        help="The cluster's state folder: control channel, logs, the server's data.",
    )(function)


@click.command()
@click.option(
    "-A",
    "--app",
    default="relier.tasks.app",
    show_default=True,
    help="The Celery app, as `celery -A` takes it.",
)
@click.option(
    "--include",
    multiple=True,
    metavar="MODULE",
    help="A module of tasks that the workers import, too; may be given again.",
)
@click.option(
    "--workers", default=2, show_default=True, type=click.IntRange(1, 256), help="How many."
)
@click.option(
    "--concurrency",
    "-c",
    type=click.IntRange(1, 1024),
    help="Processes or threads of each worker; else one per core.",
)
@click.option(
    "--pool", "-P", default="prefork", show_default=True, help="prefork, threads, solo, ..."
)
@click.option(
    "--queues", "-Q", default="", metavar="QUEUES", help="What to consume; else the app's default."
)
@click.option(
    "--url",
    metavar="URL",
    envvar="_RL_CLUSTER_URL",
    help="An existing Redis, instead of a server of the cluster's own.",
)
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    help="The server's; else the last run's, or a free one.",
)
@click.option(
    "--prefix", default="", metavar="TEXT", help="The app's global_keyprefix, if it has one."
)
@folder_option
@click.option("--detach", "-d", is_flag=True, help="Run in the background; return when ready.")
@click.option("--quiet", is_flag=True, help="Print no logs; `rl cluster logs` does.")
@common.offline
def up(asked: Asked, path: Path, detach: bool, quiet: bool, **wishes: Any) -> int:
    """Run a server, workers and a resurrector on this machine, and restart what ends.

    The server keeps its data in the state folder, so tasks that are left are there at the next
    `up`; producers find it by the RELIER_REDIS_URL that is printed. Another server is used only
    with --url, whatever RELIER_REDIS_URL says here. Ctrl-C or SIGTERM has the
    workers drain and then ends the rest; a second one ends everything at once. Whatever happens to
    this command, none of its processes stays behind, and no task is lost. It exits with 0 when
    every worker drained, with 1 when one had to be killed.

    What ends is started again, later each time; after five lives in a row of less than 10 s it is
    given up. When no worker is left so, the cluster ends with 1.

    \b
    Example: rl cluster up -A shop --workers 2 --concurrency 4
    """
    from relier.cluster.folder import Folder
    from relier.cluster.launch import Wish

    overrides = {"redis_url": wishes["url"]} if wishes["url"] else {}
    settings = config.load(os.environ, Path(".env"), overrides)
    wish = Wish(loglevel=settings.log_level, **wishes)
    if wish.url and wish.port:
        raise click.UsageError("--port is for the cluster's own server: leave out --url, or it.")
    folder = Folder(path)
    if detach:
        return _in_background(asked, wish, folder)
    folder.own()
    _log_into(folder)
    account = _supervise(asked, wish, folder, quiet=quiet)
    say_account(asked, account)
    return 0 if account.clean else common.FAILED


def _supervise(asked: Asked, wish: Wish, folder: Folder, *, quiet: bool) -> Account:
    from relier.cli.cluster_trial import try_app
    from relier.cluster.launch import environment
    from relier.cluster.logs import Tail
    from relier.cluster.supervisor import Supervisor

    printer = Printer(Tail(folder.logs), Lines(asked.as_json, len("resurrector")))
    with ExitStack() as running:
        if not quiet:
            printer.start()
            running.callback(printer.close)
        server = None
        if wish.url is None:
            server = running.enter_context(_server(wish, folder))
        url = wish.url if server is None else server.url
        assert url is not None
        overrides = {"redis_url": url, "redis_socket_timeout_s": _PATIENCE_S}
        if server is not None:
            overrides["redis_password"] = None
        settings = config.load(os.environ, Path(".env"), overrides)
        broker = common.broker_of(settings, wish.prefix)
        broker.store.check_server()
        try_app(wish, environment(url, embedded=server is not None))
        return Supervisor(wish, folder, broker, server).run()


def _server(wish: Wish, folder: Folder) -> Any:
    """Return the embedded server, not started, on the wished port or the last run's."""
    from contextlib import contextmanager

    from relier.cluster.folder import Kept
    from relier.store.embedded import EmbeddedServer

    port = wish.port or folder.kept().port
    if port is not None and not _is_free(port):
        if wish.port is not None:
            raise ConfigurationError(f"port {port} is in use: name another --port, or none")
        port = None

    @contextmanager
    def running() -> Any:
        server = EmbeddedServer(folder.data, port=port, log_path=folder.log("server"))
        with server:
            folder.keep(Kept(port=server.port))
            yield server

    return running()


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _log_into(folder: Folder) -> None:
    handler = logging.FileHandler(folder.log("cluster"))
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    found = logging.getLogger("relier")
    found.addHandler(handler)
    found.setLevel(logging.INFO)


def _in_background(asked: Asked, wish: Wish, folder: Folder) -> int:
    from relier.cluster import control
    from relier.cluster.launch import URL_VARIABLE

    with tempfile.TemporaryFile() as said:
        started = subprocess.Popen(
            [sys.executable, "-m", "relier.cli", *_typed(asked, wish, folder)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
            env={**os.environ, **({URL_VARIABLE: wish.url} if wish.url else {})},
            start_new_session=True,
        )
        deadline_s = time.monotonic() + _READY_WITHIN_S
        while time.monotonic() < deadline_s:
            status = started.poll()
            if status is not None:
                said.seek(0)
                click.echo(said.read().decode(errors="replace").rstrip(), err=True)
                return status or common.FAILED
            found = control.status(folder.socket)
            if found is not None and found.pid == started.pid:
                if found.ready:
                    if not asked.answer(found):
                        say_facts(found)
                    return 0
                failed = [part for part in found.parts if part.state == "failed"]
                if failed and not found.ending:
                    raise RelierError(
                        f"{failed[0].name} {failed[0].why} again and again, and was given up; the "
                        f"rest runs on: see `rl cluster logs`, and `rl cluster down`"
                    )
            time.sleep(_LOOK_AGAIN_S)
    raise RelierError(
        f"not ready within {_READY_WITHIN_S:g} s; it goes on in the background: see `rl cluster "
        "status` and `rl cluster logs`"
    )


def _typed(asked: Asked, wish: Wish, folder: Folder) -> list[str]:
    """Return the command that runs the same in the foreground, silently."""
    line = ["cluster", "up", "--quiet", "--dir", str(folder.path), "--app", wish.app]
    line += ["--workers", str(wish.workers), "--pool", wish.pool, "--queues", wish.queues]
    line += ["--prefix", wish.prefix]
    for option, value in (
        ("--concurrency", wish.concurrency),
        ("--port", wish.port),
    ):
        if value is not None:
            line += [option, str(value)]
    for module in wish.include:
        line += ["--include", module]
    return [*line, "--json"] if asked.as_json else line


# -- how it is shown


def say_facts(found: Facts) -> None:
    """Print how a cluster is."""
    console = common.console()
    own = "its own server" if found.embedded else "server"
    console.print(words.safe(f"{own} {found.server}, app {found.app}, {found.folder}"))
    rows = [
        (
            part.name,
            part.pid or "-",
            words.styled(part.state),
            part.restarts,
            words.span(None if part.uptime_s is None else part.uptime_s * 1000),
            part.why,
        )
        for part in found.parts
    ]
    console.print(words.table(("name", "pid", "state", "restarts", "up", "last end"), rows))
    if found.embedded:
        console.print(f"Producers and commands: export RELIER_REDIS_URL={found.server}")


def say_account(asked: Asked, account: Account) -> None:
    """Print how a cluster ended."""
    if asked.answer(account):
        return
    said = f"Ended in {account.took_s:.1f} s: {words.count(account.drained, 'worker')} drained"
    said += f", {account.killed} killed." if account.killed else "."
    if account.kept is not None:
        kept = [f"{number:,} {place}" for place, number in account.kept.items() if number]
        said += f" Kept for the next `rl cluster up`: {', '.join(kept) or 'nothing'}."
    if account.why:
        said += f" Nobody asked for it: {account.why}; see `rl cluster logs`."
    click.echo(words.safe(said))
