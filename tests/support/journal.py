"""A file on which tasks write what they did, so that the tests need not believe Redis.

Each event is one line, written by one `write` on a descriptor opened with O_APPEND: lines of
several processes do not mix, and what was written before a SIGKILL is there.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import NamedTuple

VARIABLE = "RELIER_TEST_JOURNAL"


class Entry(NamedTuple):
    """One line: when (s, the machine's monotonic clock), by which process, and what."""

    at_s: float
    pid: int
    fields: tuple[str, ...]


class Journal:
    """One journal file; the same class writes in tasks and reads in tests."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def from_env(cls) -> Journal:
        """Open the journal named to this worker by the test that started it."""
        return cls(Path(os.environ[VARIABLE]))

    @property
    def env(self) -> dict[str, str]:
        """The environment by which a worker finds this journal."""
        return {VARIABLE: str(self.path)}

    def write(self, *fields: object) -> None:
        """Append one event; fields must hold neither tab nor newline."""
        line = "\t".join([f"{time.monotonic():.6f}", str(os.getpid()), *map(str, fields)])
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(fd, f"{line}\n".encode())
        finally:
            os.close(fd)

    def entries(self, *prefix: object) -> list[Entry]:
        """Read the events whose first fields are these, in the order written."""
        wanted = tuple(map(str, prefix))
        if not self.path.exists():
            return []
        entries = []
        for line in self.path.read_text().splitlines():
            at_s, pid, *fields = line.split("\t")
            if tuple(fields[: len(wanted)]) == wanted:
                entries.append(Entry(float(at_s), int(pid), tuple(fields)))
        return entries

    def count(self, *prefix: object) -> int:
        """Count the events whose first fields are these."""
        return len(self.entries(*prefix))
