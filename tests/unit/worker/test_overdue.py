"""The main process and a pool process that share a board: who is first, decides."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from relier.worker.alarms import Alarms
from relier.worker.board import Board, Entry
from relier.worker.overdue import Overdue, Watched
from support.wait import wait_for

CLAIM = 1_795_000_000_000_001
SLOT = 3


@contextmanager
def _process(work: Callable[[], None]) -> Iterator[int]:
    """Fork a process that does the work and then sleeps."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os.write(write, b"ready")
            time.sleep(60)
        finally:
            os._exit(1)
    os.close(write)
    assert os.read(read, 5) == b"ready"
    os.close(read)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _is_killed(pid: int) -> bool:
    found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    return found is not None and found.si_status == signal.SIGKILL


@pytest.fixture
def board() -> Board:
    return Board()


def test_a_process_past_its_time_is_killed_and_condemned_first(board: Board) -> None:
    overdue, condemned = Overdue(board, Alarms()), []

    def work() -> None:
        board.write(SLOT, Entry(os.getpid(), CLAIM, time.monotonic() + 0.05))

    with _process(work) as pid:
        task = Watched(pid, CLAIM, 0.05, lambda: condemned.append(_is_killed(pid)))
        overdue.watch(task, time.monotonic())
        wait_for(lambda: _is_killed(pid), 10)
    assert condemned == [False]


def test_a_body_that_begins_late_has_its_whole_time(board: Board) -> None:
    overdue, stopped_s = Overdue(board, Alarms()), []
    begun_s = time.monotonic() + 0.2

    def work() -> None:
        time.sleep(begun_s - time.monotonic())
        board.write(SLOT, Entry(os.getpid(), CLAIM, begun_s + 0.15))

    with _process(work) as pid:
        task = Watched(pid, CLAIM, 0.15, lambda: stopped_s.append(time.monotonic()))
        overdue.watch(task, time.monotonic() - 0.2)
        wait_for(lambda: _is_killed(pid), 10)
    assert stopped_s[0] >= begun_s + 0.15


def test_a_body_that_has_ended_saves_its_process(board: Board) -> None:
    alarms, condemned = Alarms(), []
    overdue = Overdue(board, alarms)

    def work() -> None:
        board.write(SLOT, Entry(os.getpid(), CLAIM, 0.0))
        board.write(SLOT, Entry(os.getpid(), CLAIM + 1, time.monotonic() + 3600))

    with _process(work) as pid:
        task = Watched(pid, CLAIM, 0.01, lambda: condemned.append(pid))
        overdue.watch(task, time.monotonic())
        time.sleep(0.1)  # ten looks
        overdue.forget(CLAIM)
        assert not condemned
        assert not _is_killed(pid)


def test_a_lock_on_a_slot_ends_with_its_holder(board: Board) -> None:
    kept = []

    def work() -> None:
        board.write(SLOT, Entry(os.getpid(), CLAIM, 0.0))
        kept.append(board.held(SLOT))
        kept[0].__enter__()

    with _process(work) as pid:
        assert board.find(pid, CLAIM) == SLOT
        with pytest.raises(BlockingIOError), board.held(SLOT):
            pass
    with board.held(SLOT) as entry:
        assert entry.claim == CLAIM
