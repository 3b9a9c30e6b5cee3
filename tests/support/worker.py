"""Real `celery worker` processes, started, watched, frozen and killed by the tests."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from support import nursery
from support.nursery import TESTS
from support.wait import wait_for

READY = re.compile(r"\bready\.\s*$", re.MULTILINE)
READY_DEADLINE_S = 60.0
STOP_DEADLINE_S = 30.0
LOG_TAIL_CHARS = 4000


class Worker:
    """One `celery -A app worker` in a process group of its own; a context manager.

    Its process is forked off one that has imported Celery already; see `support.nursery`.

    Args:
        app: the module that holds the Celery app, as `-A` takes it. Modules beside the tests
            (`faults.apps.shop`), and in `path`, can be imported.
        env: added to this process's environment; where the app reads its broker from.
        pool: prefork, threads or solo.
        concurrency: pool processes or threads.
        queues: what to consume; empty: the app's default.
        name: the part of the node name before `@`; None makes one.
        path: more folders to import from.
        options: more arguments of `celery worker`.
        log_dir: where the log goes; None: a temporary folder.
        loglevel: Celery's; INFO or lower, for the log tells when the worker is ready.
    """

    def __init__(
        self,
        app: str,
        *,
        env: Mapping[str, str] | None = None,
        pool: str = "prefork",
        concurrency: int = 2,
        queues: Sequence[str] = (),
        name: str | None = None,
        path: Sequence[Path] = (),
        options: Sequence[str] = (),
        log_dir: Path | None = None,
        loglevel: str = "INFO",
    ) -> None:
        folder = log_dir or Path(tempfile.gettempdir())
        fd, log_path = tempfile.mkstemp(prefix=f"{name or 'worker'}-", suffix=".log", dir=folder)
        os.close(fd)
        self.log_path = Path(log_path)
        self._keeps_log = log_dir is not None
        self.name = name or self.log_path.stem.replace("_", "")
        self.hostname = f"{self.name}@test"
        self._arguments = [
            *("-A", app, "worker"),
            *("-P", pool, "-c", str(concurrency), "-n", self.hostname, "-l", loglevel),
            *(("-Q", ",".join(queues)) if queues else ()),
            *options,
        ]
        self._path = [*map(str, path), str(TESTS)]
        folders = [*self._path, *filter(None, [os.environ.get("PYTHONPATH")])]
        self._env = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(folders),
            "PYTHONUNBUFFERED": "1",
            **(env or {}),
        }
        self._process: nursery.Worker | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.cleanup()
        if exc is not None:
            exc.add_note(f"--- log of {self.hostname}\n{self._log_tail()}")
        if not self._keeps_log:
            self.log_path.unlink(missing_ok=True)

    @property
    def pid(self) -> int:
        """The main process's id."""
        assert self._process is not None, "start() first"
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the main process is there."""
        return self._process is not None and self._process.poll() is None

    @property
    def returncode(self) -> int | None:
        """The main process's exit status; None while it runs."""
        return None if self._process is None else self._process.poll()

    def start(self, *, wait_ready: bool = True) -> None:
        """Start the worker; wait until it says that it is ready.

        Raises:
            AssertionError: it ended or stayed silent; the message ends with its log.
        """
        self._process = nursery.nursery().bear(
            self._arguments, self._env, self._path, self.log_path
        )
        if wait_ready:
            self.wait_ready()

    def wait_ready(self) -> None:
        """Wait until the log says that the worker is ready."""
        try:
            wait_for(lambda: self.ready or not self.running, READY_DEADLINE_S)
            assert self.ready, f"{self.hostname} ended with {self.returncode}"
        except BaseException as problem:
            self.cleanup()
            problem.add_note(f"--- log of {self.hostname}\n{self._log_tail()}")
            raise

    @property
    def ready(self) -> bool:
        """Whether the log says so."""
        return READY.search(self.log()) is not None

    def log(self) -> str:
        """Everything the worker and its children printed."""
        return self.log_path.read_text(errors="replace")

    def children(self) -> list[int]:
        """The pool's processes, oldest first."""
        # A pool process is forked without exec, so it shows its parent's command line (which is the
        # nursery's); helper processes such as the semaphore tracker show their own.
        own = _command_line(self.pid)
        found = [pid for pid in _children_of(self.pid) if _command_line(pid) == own]
        return sorted(found, key=_started_ticks)

    def sigkill(self) -> None:
        """Kill the main process alone, and wait until it is gone. The kernel tells nobody else."""
        self._signal(signal.SIGKILL)
        self.wait(STOP_DEADLINE_S)

    def sigkill_tree(self) -> None:
        """Kill the main process and its pool at once, as the loss of a container would."""
        self._signal_group(signal.SIGKILL)
        self.wait(STOP_DEADLINE_S)

    def sigstop(self) -> None:
        """Freeze the main process and its pool."""
        self._signal_group(signal.SIGSTOP)

    def sigcont(self) -> None:
        """Thaw them."""
        self._signal_group(signal.SIGCONT)

    def sigterm(self) -> None:
        """Ask for a warm shutdown; do not wait."""
        self._signal(signal.SIGTERM)

    def wait(self, deadline_s: float = STOP_DEADLINE_S) -> int:
        """Wait until the main process has ended; return its exit status."""
        assert self._process is not None, "start() first"
        try:
            return self._process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"{self.hostname} has not ended in {deadline_s} s\n{self._log_tail()}"
            ) from None

    def stop(self, deadline_s: float = STOP_DEADLINE_S) -> int:
        """Shut down warmly, wait, and clear up what is left; return the exit status."""
        self.sigterm()
        try:
            return self.wait(deadline_s)
        finally:
            self.cleanup()

    def cleanup(self) -> None:
        """Kill whatever is left of the worker."""
        self._signal_group(signal.SIGKILL)
        if self._process is not None:
            self._process.wait(STOP_DEADLINE_S)

    def _signal(self, signum: signal.Signals) -> None:
        assert self._process is not None, "start() first"
        self._process.send_signal(signum)

    def _signal_group(self, signum: signal.Signals) -> None:
        if self._process is None:
            return
        try:
            os.killpg(self._process.pid, signum)
        except ProcessLookupError:
            pass  # nothing is left of it

    def _log_tail(self) -> str:
        return self.log()[-LOG_TAIL_CHARS:]


def _children_of(parent: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            fields = _stat(int(entry.name))
            if len(fields) > 1 and int(fields[1]) == parent and fields[0] != "Z":
                found.append(int(entry.name))
    return found


def _stat(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat from the state on; empty if the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _started_ticks(pid: int) -> int:
    fields = _stat(pid)
    return int(fields[19]) if fields else 0


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""
