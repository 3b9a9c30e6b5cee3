"""The bodies of the tasks that a worker runs, and what its pool can do to stop them."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from celery.worker import state as worker_state

from relier.worker.membership import Membership
from relier.worker.request import Request
from relier.worker.timeouts import Timekeeper

_DIES_WITHIN_S = 2.0
_ACCEPTED_WITHIN_S = 0.5
_POLL_S = 0.01


class Bodies:
    """Bodies that run in threads of this very process: nothing can stop one of them.

    Args:
        membership: what this process holds.
        pool: Celery's pool.
        keeper: runs the hooks of what runs here.
    """

    can_be_stopped = False
    end_takes_s = 0.3
    """From stopping them to the end of the process."""

    def __init__(self, membership: Membership, pool: Any, keeper: Timekeeper) -> None:
        self._membership = membership
        self._pool = pool
        self._keeper = keeper

    def unprotected(self) -> set[str]:
        """Return the tags of what runs here without relier's protection; it ends as Celery has it.

        Its claim never started: given back, it would run twice at once.
        """
        ours = {request.claim.tag for request in self._membership.living_requests()}
        return {request.message.delivery_tag for request in _active()} - ours

    def run_hooks(self, _requests: Iterable[Request]) -> Callable[[], bool]:
        """Run the soft timeout's hook beside each body that has one.

        Returns:
            What tells whether all of them have ended.
        """
        hooks = threading.Thread(target=self._keeper.run_hooks, name="relier-hooks", daemon=True)
        hooks.start()
        return lambda: not hooks.is_alive()

    def stop(self, _requests: Iterable[Request]) -> list[Request]:
        """Stop bodies; return those that are certain to have stopped."""
        return []

    def kill(self, _request: Request) -> None:
        """Stop a body whose claim was taken away, where that can be done."""


class Processes(Bodies):
    """Bodies that run one in a pool process each."""

    can_be_stopped = True
    end_takes_s = 1.5  # Celery looks after its dead processes every half a second

    def run_hooks(self, requests: Iterable[Request]) -> Callable[[], bool]:
        """Have the processes run them."""
        summons = self._keeper.summons
        if summons is None:
            return lambda: True
        asked = {_process_of(request) for request in requests if has_hook(request)}
        summons.call()
        return lambda: asked <= summons.replied()

    def stop(self, requests: Iterable[Request]) -> list[Request]:
        """Kill their processes; return the requests whose process is gone."""
        pids = {}
        for request in requests:
            request.handed_over = True
            pid = _process_of(request)
            if pid:
                self._pool.terminate_job(pid, signal.SIGKILL)
                pids[pid] = request
        until_s = time.monotonic() + _DIES_WITHIN_S
        return [request for pid, request in pids.items() if _is_gone(pid, until_s)]

    def kill(self, request: Request) -> None:
        """Kill its process."""
        if request.worker_pid:
            self._pool.terminate_job(request.worker_pid, signal.SIGKILL)


def has_hook(request: Any) -> bool:
    """Return whether a request's task has a hook for its soft timeout."""
    return getattr(request.task, "on_soft_timeout", None) is not None


def _active() -> list[Any]:
    while True:
        try:
            return list(worker_state.active_requests)
        except RuntimeError:
            continue  # the main thread has changed it meanwhile


def _process_of(request: Any) -> int | None:
    """Return the process that runs a request, though it may not have said so yet."""
    until_s = time.monotonic() + _ACCEPTED_WITHIN_S
    while request.worker_pid is None and time.monotonic() < until_s:
        time.sleep(_POLL_S)
    if request.worker_pid is not None:
        return int(request.worker_pid)
    job = request._apply_result() if request._apply_result else None
    process = getattr(job, "_write_to", None)
    return getattr(process, "pid", None)


def _is_gone(pid: int, until_s: float) -> bool:
    """Wait until a child is dead. Its parent's main thread may be reaping it meanwhile."""
    while True:
        try:
            if hasattr(os, "waitid"):
                how = os.WEXITED | os.WNOWAIT | os.WNOHANG
                if os.waitid(os.P_PID, pid, how) is not None:
                    return True
            else:
                os.kill(pid, 0)
        except (ChildProcessError, ProcessLookupError):
            return True
        if time.monotonic() > until_s:
            return False
        time.sleep(_POLL_S)
