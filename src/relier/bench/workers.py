"""Real ``celery worker`` processes, killed without mercy and never left behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from relier.bench.waiting import BenchError, wait_for

T = TypeVar("T")

_READY = re.compile(rb"\bready\.\s*$", re.MULTILINE)
_READY_DEADLINE_S = 60.0
_END_DEADLINE_S = 20.0
_LOG_TAIL_CHARS = 2000


class Worker:
    """One prefork worker in a process group of its own; a context manager that kills it.

    Args:
        folder: its working directory, where its log goes too.
        name: the part of the node name before ``@``, unique in the run.
        env: the whole environment.
        concurrency: pool processes.
        loglevel: Celery's; ``wait_ready`` needs INFO.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        env: Mapping[str, str],
        *,
        concurrency: int,
        loglevel: str = "INFO",
    ) -> None:
        self.name = name
        self._folder = folder
        self._env = dict(env)
        self._command = [
            *(sys.executable, "-m", "celery", "-A", "relier.bench.workload", "worker"),
            *("-c", str(concurrency), "-n", f"{name}@bench", "-l", loglevel),
        ]
        # Every main process that was started and whose group may still have members.
        self._processes: list[subprocess.Popen[bytes]] = []
        self._starts = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill_tree()
        if exc is not None:
            exc.add_note(f"--- end of the log of {self.name}\n{self.log_tail()}")

    @property
    def pid(self) -> int:
        """The main process; also the id of the group."""
        if not self._processes:
            raise BenchError(f"worker {self.name} does not run")
        return self._processes[-1].pid

    @property
    def running(self) -> bool:
        """Whether the main process is there."""
        return bool(self._processes) and self._processes[-1].poll() is None

    def start(self) -> None:
        """Start it, again after it died if need be; do not wait."""
        self._starts += 1
        with self._log_path.open("wb") as log:
            self._processes.append(
                subprocess.Popen(
                    self._command,
                    cwd=self._folder,
                    env=self._env,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            )

    def wait_ready(self) -> None:
        """Wait until the log says that it is ready."""
        self.wait_for(
            lambda: _READY.search(self._log_path.read_bytes()), _READY_DEADLINE_S, "ready"
        )

    def wait_for(self, condition: Callable[[], T], deadline_s: float, what: str) -> T:
        """Wait for a condition that only a living worker can bring about; return what it gave.

        Raises:
            BenchError: the worker ended, or the deadline passed.
        """

        def look() -> T:
            value = condition()
            if not value and not self.running:
                raise BenchError(f"worker {self.name} ended by itself:\n{self.log_tail()}")
            return value

        return wait_for(look, deadline_s, f"worker {self.name}: {what}")

    def kill_main(self) -> None:
        """Kill the main process alone; its pool may go on for a while, as orphans."""
        process = self._processes[-1]
        process.kill()
        process.wait(_END_DEADLINE_S)

    def kill_tree(self) -> None:
        """Kill the main process and its pool at once, as the loss of a container would.

        Orphans of earlier starts go with them.
        """
        for process in self._processes:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # nothing is left of it
            process.wait(_END_DEADLINE_S)
        self._processes.clear()

    def processes(self) -> list[int]:
        """Return every process of the group (Linux)."""
        return [pid for pid in _all_processes() if _group_of(pid) == self.pid]

    def pss_kb(self) -> int:
        """Return the proportional set sizes of all its processes, added up.

        Raises:
            BenchError: this is not Linux.
        """
        if not Path("/proc/self/smaps_rollup").exists():
            raise BenchError("memory of processes can only be read on Linux (/proc/*/smaps_rollup)")
        return sum(_pss_kb(pid) for pid in self.processes())

    @property
    def _log_path(self) -> Path:
        return self._folder / f"{self.name}-{self._starts}.log"

    def log_tail(self) -> str:
        """Return the end of its log."""
        if not self._log_path.exists():
            return ""
        return self._log_path.read_text(errors="replace")[-_LOG_TAIL_CHARS:]


def _all_processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _pss_kb(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    return 0


def _group_of(pid: int) -> int:
    """Return a process's group, 0 when it is gone or a zombie."""
    try:
        state, _, group, *_ = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return 0 if state == "Z" else int(group)
