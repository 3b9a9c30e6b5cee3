"""By which commands, and in which environment, the parts of a cluster are started."""

from __future__ import annotations

import hashlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from relier.cluster.plan import RESURRECTOR

URL_VARIABLE = "_RL_CLUSTER_URL"
"""By which a command gives `--url` to its successor in the background: `ps` shows arguments."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody wants to run.

    Args:
        app: the Celery app, as `celery -A` takes it.
        include: modules that the workers import besides.
        workers: how many.
        concurrency: pool processes or threads of each; None is Celery's own choice.
        pool: Celery's name of the pool.
        queues: what the workers consume, separated by commas; "" is the app's default.
        url: an existing server; None is one of our own.
        port: that of our own; None is the last run's, or a free one.
        prefix: the app's global_keyprefix.
        loglevel: the workers'.
    """

    app: str
    include: tuple[str, ...]
    workers: int
    concurrency: int | None
    pool: str
    queues: str
    url: str | None
    port: int | None
    prefix: str
    loglevel: str


def command(wish: Wish, name: str, folder: Path) -> list[str]:
    """Return the command line of a worker, or of the resurrector."""
    if name == RESURRECTOR:
        prefix = ("--prefix", wish.prefix) if wish.prefix else ()
        return [sys.executable, "-m", "relier.cli", "run-resurrector", "--wait", "60", *prefix]
    line = [sys.executable, "-m", "celery", "-A", wish.app, "worker"]
    line += ["--hostname", f"{name}{_suffix(wish, folder)}@%h"]
    line += ["--pool", wish.pool, "--loglevel", wish.loglevel]
    if wish.concurrency is not None:
        line += ["--concurrency", str(wish.concurrency)]
    if wish.queues:
        line += ["--queues", wish.queues]
    if wish.include:
        line += ["--include", ",".join(wish.include)]
    return line


def environment(url: str, *, embedded: bool) -> dict[str, str]:
    """Return the environment of a worker or the resurrector; the address is not for `ps`."""
    env = {**os.environ, "RELIER_REDIS_URL": url, "PYTHONUNBUFFERED": "1"}
    env.pop(URL_VARIABLE, None)
    if embedded:
        env["RELIER_REDIS_PASSWORD"] = ""  # ours has none, whatever a .env file says
    return env


def _suffix(wish: Wish, folder: Path) -> str:
    # On a server that is not its own, another cluster may have workers of the same names.
    if wish.url is None:
        return ""
    return "-" + hashlib.sha256(os.fsencode(folder)).hexdigest()[:4]
