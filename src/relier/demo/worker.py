"""The shop's workers: real `celery worker` processes, each with a log file of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

from relier.demo.surroundings import Surroundings

_STOP_DEADLINE_S = 10.0


class Worker:
    """One worker, prefork with two processes, in a process group of its own.

    Args:
        name: what people call it.
        place: where the run takes place.
    """

    def __init__(self, name: str, place: Surroundings) -> None:
        self.name = name
        self._place = place
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def node(self) -> str:
        """Return the name under which it is in the fleet."""
        return f"{self.name}@shop"

    @property
    def pid(self) -> int:
        """Return its main process; 0 before the start."""
        return self._process.pid if self._process else 0

    @property
    def running(self) -> bool:
        """Return whether its main process is there."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it; do not wait until it is ready."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("RELIER_")}
        with (self._place.logs / f"{self.name}.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "celery", "-A", "relier.demo.shop", "worker"),
                    *("--pool", "prefork", "--concurrency", "2", "--hostname", self.node),
                    *("--loglevel", "INFO", "--without-gossip", "--without-mingle"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**environment, **self._place.environment},
                # Ctrl-C in the terminal is the demo's to answer.
                start_new_session=True,
            )

    def kill(self) -> None:
        """Kill it and its pool with SIGKILL at once, as the loss of its container would."""
        self._signal_group(signal.SIGKILL)
        if self._process is not None:
            self._process.wait(_STOP_DEADLINE_S)

    def ask_to_stop(self) -> None:
        """Ask for a warm shutdown; do not wait."""
        if self.running and self._process is not None:
            self._process.send_signal(signal.SIGTERM)

    def wait(self) -> bool:
        """Wait until it has ended; return whether it did so by itself."""
        if self._process is None:
            return True
        try:
            self._process.wait(_STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _signal_group(self, signum: signal.Signals) -> None:
        if self._process is None:
            return
        try:
            os.killpg(self._process.pid, signum)
        except ProcessLookupError:
            pass  # nothing is left of it


def stop_all(workers: list[Worker]) -> None:
    """Stop the workers warmly, together; kill what does not go."""
    for worker in workers:
        worker.ask_to_stop()
    for worker in workers:
        worker.wait()
        worker.kill()


def ended(workers: list[Worker]) -> Iterator[Worker]:
    """Yield those that ended without being told to."""
    return (worker for worker in workers if worker.pid and not worker.running)
