"""One supervised process, in a group of its own, with its log."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from relier.cluster import guarded

_KILLED_WITHIN_S = 10.0


class Lifeline:
    """A pipe whose writing end nobody but this process has; see `guarded`."""

    def __init__(self) -> None:
        self.fd, self._held = os.pipe()

    def close(self) -> None:
        """Let go of it: whoever is still guarded by it is killed."""
        os.close(self.fd)
        os.close(self._held)


class Process:
    """A program that was started, and ends with this process at the latest.

    Args:
        command: the program's path and arguments.
        env: all of its environment.
        log: what it prints is appended to this file.
        lifeline: what ties it to this process.
    """

    def __init__(
        self, command: Sequence[str], env: Mapping[str, str], log: Path, lifeline: Lifeline
    ) -> None:
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", guarded.__file__, str(lifeline.fd), *command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=env,
                pass_fds=[lifeline.fd],
                # Ctrl-C in the terminal is the supervisor's to answer.
                start_new_session=True,
            )
        self.pid = self._process.pid

    def status(self) -> int | None:
        """Return its exit status, negative for a signal, and clear up behind it; None: it runs."""
        status = self._process.poll()
        if status is not None:
            self._kill_group()  # its pool processes and its watcher, if it left them
        return status

    def ask_to_end(self) -> None:
        """Send SIGTERM to the program alone."""
        self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it and all it started; wait until it is gone."""
        self._kill_group()
        self._process.wait(_KILLED_WITHIN_S)

    def _kill_group(self) -> None:
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass  # nothing is left of it; macOS says so by the second
