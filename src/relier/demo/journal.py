"""What the shop's tasks say of themselves: one line per step, written before a kill can undo it.

Each line is a single write to a file opened with O_APPEND, so lines of several processes do not
mix, and what was written before a SIGKILL is there. The audit need not believe Redis.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import NamedTuple

BEGUN, DONE = "begun", "done"


class Entry(NamedTuple):
    """One line.

    Args:
        at_s: the machine's monotonic clock.
        pid: the pool process.
        step: "begun" or "done".
        fence: of the claim under which the task ran.
    """

    at_s: float
    pid: int
    step: str
    task_id: str
    invoice: str
    fence: int


class Journal:
    """One journal file, for the tasks that write it and the audit that reads it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, step: str, task_id: str, invoice: str, fence: int) -> None:
        """Append one step."""
        fields = (f"{time.monotonic():.6f}", os.getpid(), step, task_id, invoice, fence)
        line = "\t".join(map(str, fields)) + "\n"
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)

    def entries(self) -> list[Entry]:
        """Read every step, in the order written."""
        if not self.path.exists():
            return []
        found = []
        for line in self.path.read_text().splitlines():
            at_s, pid, step, task_id, invoice, fence = line.split("\t")
            found.append(Entry(float(at_s), int(pid), step, task_id, invoice, int(fence)))
        return found
