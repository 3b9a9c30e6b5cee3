"""`rl run-resurrector`."""

from __future__ import annotations

import json
import logging
import signal
import threading

import click

from relier.cli import common
from relier.cli.common import Asked
from relier.phoenix.service import Phoenix

logger = logging.getLogger("relier.resurrector")


@click.command("run-resurrector")
@common.command
def run_resurrector(asked: Asked) -> None:
    """Bring back the tasks of dead workers, until SIGTERM or Ctrl-C.

    Every worker does this, too; a resurrector of its own helps when all workers may die at once.
    """
    broker = asked.broker
    _log_to_stderr(broker.settings.log_level, as_json=asked.as_json)
    version = broker.store.check_server()
    stopping = threading.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: stopping.set())
    phoenix = Phoenix(broker)
    phoenix.start()
    logger.info("watching the workers of %s (%s)", broker.address.public, version)
    stopping.wait()
    phoenix.stop()
    logger.info("stopped")


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
