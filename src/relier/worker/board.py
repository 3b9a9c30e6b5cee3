"""What the pool's processes write down for the main process: until when each may run its task.

A process that is stuck outside Python cannot watch itself, so the main process must be able to stop
it; but only the process knows when its task's body began and whether it has ended. Each process has
a slot in memory that all of them share. A lock on the slot decides who was first when a body ends
at the moment of its hard timeout; the kernel releases it when its holder dies.
"""

from __future__ import annotations

import fcntl
import logging
import mmap
import os
import signal
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

logger = logging.getLogger(__name__)

SLOTS = 4096
"""More than a worker has pool processes."""

_SLOT = struct.Struct("=qqd")


class Entry(NamedTuple):
    """What one process runs.

    Args:
        pid: the process.
        claim: the number of the claim it runs under, or 0 when no body runs.
        stop_at_s: when it is to be stopped, on the machine's monotonic clock.
    """

    pid: int
    claim: int
    stop_at_s: float


class Board:
    """Shared memory of a worker's processes; made by the main process before it forks them."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self._fd = _shared_file(SLOTS * _SLOT.size)
        self._memory = mmap.mmap(self._fd, SLOTS * _SLOT.size)

    def write(self, slot: int, entry: Entry) -> None:
        """Say what this process runs; waits while the main process looks, or stops this one."""
        with self._locked(slot, fcntl.LOCK_EX):
            _SLOT.pack_into(self._memory, slot * _SLOT.size, *entry)

    def find(self, pid: int, claim: int) -> int | None:
        """Return the slot of a process if it runs the body of this claim's task."""
        entries = _SLOT.iter_unpack(self._memory[:])
        return next((slot for slot, entry in enumerate(entries) if entry[:2] == (pid, claim)), None)

    @contextmanager
    def held(self, slot: int) -> Iterator[Entry]:
        """Keep a process from ending its body, and see what it runs.

        Raises:
            BlockingIOError: it is ending its body right now.
        """
        with self._locked(slot, fcntl.LOCK_EX | fcntl.LOCK_NB):
            yield Entry(*_SLOT.unpack_from(self._memory, slot * _SLOT.size))

    @contextmanager
    def _locked(self, slot: int, how: int) -> Iterator[None]:
        fcntl.lockf(self._fd, how, 1, slot)
        try:
            yield
        finally:
            fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, slot)


class Place(NamedTuple):
    """A pool process's slot on the board."""

    board: Board
    slot: int

    def write(self, claim: int, stop_at_s: float) -> None:
        """Say what this process runs; 0 is nothing."""
        self.board.write(self.slot, Entry(os.getpid(), claim, stop_at_s))

    def leave_if_orphaned(self, timed: object) -> None:
        """End this process if the main process, which should have done that, is dead.

        Its claims are others' by then: what it still does would be done twice, and for ever.
        """
        if os.getppid() != self.board.owner:
            logger.error("%s is over its hard timeout, and its worker is dead: ending", timed)
            os.kill(os.getpid(), signal.SIGKILL)


def _shared_file(size: int) -> int:
    """Return a file without a name; its descriptor is all that keeps it."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("relier-board")
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, size)
    return fd
