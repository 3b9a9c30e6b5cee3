"""What the tasks wrote down themselves, so that nobody need believe Redis."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Entry(NamedTuple):
    """One line.

    Args:
        at_s: the machine's monotonic clock.
        pid: of the process that wrote it.
        event: "started" or "committed"; "alive" and "hook" of tasks that outstay.
        task_id: the task.
        fence: its fencing token; 0 for vanilla Celery and but for "started".
    """

    at_s: float
    pid: int
    event: str
    task_id: str
    fence: int


class Journal:
    """Read a journal that tasks append to, each line once.

    Args:
        path: the file; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0
        self._entries: list[Entry] = []

    def entries(self, event: str) -> list[Entry]:
        """Return the entries of one kind so far, in the order written."""
        self._read_on()
        return [entry for entry in self._entries if entry.event == event]

    def _read_on(self) -> None:
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._offset)
            whole, newline, _ = file.read().rpartition(b"\n")
        self._offset += len(whole) + len(newline)
        for line in whole.decode().splitlines():
            at_s, pid, event, task_id, *fence = line.split("\t")
            entry = Entry(float(at_s), int(pid), event, task_id, int(fence[0]) if fence else 0)
            self._entries.append(entry)
