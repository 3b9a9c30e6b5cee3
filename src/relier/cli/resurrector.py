"""`rl run-resurrector`."""

from __future__ import annotations

import json
import logging
import signal
import threading
import time

import click

from relier.cli import common
from relier.cli.common import Asked
from relier.errors import RedisConnectionError
from relier.phoenix.service import Phoenix
from relier.store.broker import Broker

logger = logging.getLogger("relier.resurrector")

_LOOK_AGAIN_S = 0.25


@click.command("run-resurrector")
@click.option(
    "--wait",
    "wait_s",
    type=common.FloatRange(min=0),
    default=0.0,
    metavar="SECONDS",
    help="How long Redis may take to come up; without it, one that is away ends the command.",
)
@common.command
def run_resurrector(asked: Asked, wait_s: float) -> None:
    """Bring back the tasks of dead workers, until SIGTERM or Ctrl-C.

    Every worker does this, too; a resurrector of its own helps when all workers may die at once.
    Once it runs, a Redis that goes away is waited for.

    \b
    Example: rl run-resurrector --wait 60
    """
    broker = asked.broker
    _log_to_stderr(broker.settings.log_level, as_json=asked.as_json)
    stopping = threading.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: stopping.set())
    version = _answering(broker, wait_s, stopping)
    if version is None:
        return
    phoenix = Phoenix(broker)
    phoenix.start()
    logger.info("watching the workers of %s (%s)", broker.address.public, version)
    stopping.wait()
    phoenix.stop()
    logger.info("stopped")


def _answering(broker: Broker, wait_s: float, stopping: threading.Event) -> str | None:
    """Wait for the server; return its version, or None when told to stop first.

    Raises:
        RedisConnectionError: it has not come up in time.
    """
    deadline_s = time.monotonic() + wait_s
    said = False
    while not stopping.is_set():
        try:
            return broker.store.check_server()
        except RedisConnectionError as error:
            if time.monotonic() >= deadline_s:
                raise
            if not said:
                logger.warning("waiting for Redis: %s", error)
            said = True
        stopping.wait(_LOOK_AGAIN_S)
    return None


def _log_to_stderr(level: str, *, as_json: bool) -> None:
    handler = logging.StreamHandler()
    text = logging.Formatter("%(asctime)s %(levelname)s %(message)s")
    handler.setFormatter(_JsonLines() if as_json else text)
    root = logging.getLogger("relier")
    root.addHandler(handler)
    root.setLevel(level)


class _JsonLines(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(
            {
                "at": self.formatTime(record),
                "level": record.levelname,
                "logger": record.name,
                "message": record.getMessage(),
            }
        )
