"""Where workers are born: a process that has Celery and relier imported, and forks on demand.

Most of what starting a worker costs is importing the same modules again. Each is forked before
anything but imports has happened, and goes on as ``python -m celery`` would, in an environment, a
session and with a log of its own.
"""

from __future__ import annotations

import atexit
import functools
import importlib
import json
import os
import queue
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1]
IMPORTED_ONCE = (
    "celery.bin.celery",
    "celery.apps.worker",
    "celery.app.trace",
    "celery.backends.redis",
    "celery.concurrency.prefork",
    "celery.concurrency.solo",
    "celery.concurrency.thread",
    "celery.worker.worker",
    "celery.worker.components",
    "celery.worker.consumer",
    "celery.worker.pidbox",
    "relier",
    "relier.worker.transport",
    "relier.tasks.install",
)
_BIRTH_DEADLINE_S = 60.0


class Worker:
    """A worker as its test sees it; what there is of `subprocess.Popen`'s ways.

    Args:
        pid: its process, which leads a session of its own.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._ended = threading.Event()

    def poll(self) -> int | None:
        """Return the exit status, negative for a signal; None while it runs."""
        return self.returncode

    def wait(self, timeout: float) -> int:
        """Wait until it has ended, and return the exit status.

        Raises:
            TimeoutExpired: it has not.
        """
        if not self._ended.wait(timeout):
            raise subprocess.TimeoutExpired(f"worker {self.pid}", timeout)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, signum: signal.Signals) -> None:
        """Send it a signal, unless it has ended."""
        if self.returncode is None:
            try:
                os.kill(self.pid, signum)
            except ProcessLookupError:
                pass  # it has, and word of it is on its way

    def end(self, status: int) -> None:
        """Learn that it has ended."""
        self.returncode = status
        self._ended.set()


class Nursery:
    """The way to one nursery; its workers end with it, and it with the process that made it."""

    def __init__(self) -> None:
        folders = [str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "support.nursery"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(folders), "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
        )
        self._births: queue.SimpleQueue[Worker] = queue.SimpleQueue()
        self._workers: dict[int, Worker] = {}
        self._one_at_a_time = threading.Lock()
        threading.Thread(target=self._listen, name="nursery", daemon=True).start()
        atexit.register(self.close)

    def bear(
        self, arguments: Sequence[str], env: Mapping[str, str], path: Sequence[str], log: Path
    ) -> Worker:
        """Fork a worker.

        Args:
            arguments: those of the `celery` command.
            env: all of its environment.
            path: folders to import from before others.
            log: what it prints is appended to this file.
        """
        order = {"arguments": [*arguments], "env": {**env}, "path": [*path], "log": str(log)}
        assert self._process.stdin is not None
        with self._one_at_a_time:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
            return self._births.get(timeout=_BIRTH_DEADLINE_S)

    def close(self) -> None:
        """Kill what is left of its workers, and end it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(_BIRTH_DEADLINE_S)

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            word, pid, *status = line.split()
            if word == b"born":
                worker = self._workers[int(pid)] = Worker(int(pid))
                self._births.put(worker)
            else:
                self._workers.pop(int(pid)).end(int(status[0]))


@functools.cache
def nursery() -> Nursery:
    """Return this process's own."""
    return Nursery()


# -- in the nursery itself


def serve() -> dict[str, Any] | None:
    """Fork a worker for each order, and tell of each birth and death.

    Returns:
        In each worker, what it is to be; in the nursery None, once the orders have ended.
    """
    ears, told = socket.socketpair()
    for end in (ears, told):
        end.setblocking(False)
    signal.set_wakeup_fd(told.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    alive: set[int] = set()
    heard = b""
    with selectors.DefaultSelector() as selector, ears, told:
        selector.register(0, selectors.EVENT_READ)
        selector.register(ears, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is ears:
                    ears.recv(4096)
                    _tell_deaths(alive)
                    continue
                more = os.read(0, 65536)
                if not more:
                    _end_all(alive)
                    return None
                *orders, heard = (heard + more).split(b"\n")
                for order in orders:
                    pid = os.fork()
                    if pid == 0:
                        signal.set_wakeup_fd(-1)
                        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                        found: dict[str, Any] = json.loads(order)
                        return found
                    alive.add(pid)
                    os.write(1, f"born {pid}\n".encode())


def _tell_deaths(alive: set[int]) -> None:
    for pid in [*alive]:
        gone, status = os.waitpid(pid, os.WNOHANG)
        if gone:
            alive.discard(pid)
            os.write(1, f"dead {pid} {os.waitstatus_to_exitcode(status)}\n".encode())


def _end_all(alive: set[int]) -> None:
    for pid in alive:
        try:
            os.killpg(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # it has ended before


def become(order: Mapping[str, Any]) -> None:
    """Go on as the `celery` command."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.close(null)
    os.close(log)
    os.environ.clear()
    os.environ.update(order["env"])
    sys.path[1:1] = [folder for folder in order["path"] if folder not in sys.path]
    sys.argv = ["celery", *order["arguments"]]
    sys.orig_argv[:] = [sys.executable, "-m", "celery", *order["arguments"]]  # to restart by
    runpy.run_module("celery", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    for module in IMPORTED_ONCE:
        importlib.import_module(module)
    wanted = serve()
    if wanted is not None:
        become(wanted)
