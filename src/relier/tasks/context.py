"""What a task may know about its own execution."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from relier.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class TaskContext:
    """One execution of one task.

    Args:
        task_id: the task.
        task_name: its name.
        args: its positional arguments.
        kwargs: its keyword arguments.
        worker_id: the worker process that holds the claim, or "" outside a worker.
        attempt: which start of this life this is, from 1.
        resurrections: how often it came back from a dead process.
        fence: the fencing token, one growing integer per server; 0 outside a worker.
        started_at: unix time in seconds at which this execution began.
        deadline: unix time in seconds of its hard timeout, or None.
    """

    task_id: str
    task_name: str
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    worker_id: str
    attempt: int
    resurrections: int
    fence: int
    started_at: float
    deadline: float | None = None


_current: ContextVar[TaskContext | None] = ContextVar("relier_task_context", default=None)


def task_context() -> TaskContext:
    """Return the context of the task that runs here, anywhere below its function.

    Raises:
        ConfigurationError: no task made by ``rl_task`` is running.
    """
    context = _current.get()
    if context is None:
        raise ConfigurationError("task_context() works inside a task made by @rl_task")
    return context


def context_of(task: Any) -> TaskContext:
    """Return the context of a task's present request."""
    request = task.request
    run = getattr(request, "relier_run", None)
    return TaskContext(
        task_id=request.id or "",
        task_name=task.name,
        args=tuple(request.args or ()),
        kwargs=dict(request.kwargs or {}),
        worker_id=run.claim.worker if run else "",
        attempt=run.started.starts if run else 1,
        resurrections=run.started.returns if run else 0,
        fence=run.started.fence if run else 0,
        started_at=time.time(),
        deadline=run.timed.deadline if run and run.timed else None,
    )


current = _current
