"""What a task may know about its own execution."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from relier.errors import ConfigurationError
from relier.worker.checkpoints import Checkpoints, encode
from relier.worker.grip import REQUEST_KEY


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
        metadata: the headers that the dispatch gave (``apply_async(headers={...})``), read-only.
            Celery hands them on to every retry.
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
    metadata: Mapping[str, Any] = field(default_factory=dict)
    _checkpoints: Checkpoints | None = field(default=None, repr=False, compare=False)

    @property
    def partial_result(self) -> Any:
        """Return what an earlier attempt of this task saved last; None when there is nothing.

        It survives the death of a process or a worker, a hand-over, a retry, and a stay in the
        dead letters, and is gone once the task has succeeded. What this attempt saves itself does
        not change it.

        Raises:
            CheckpointError: there is one, but in a file that cannot be read here.
        """
        return self._checkpoints.earlier() if self._checkpoints else None

    def save_partial(self, state: object) -> None:
        """Save how far the task has come, in place of what was saved before.

        It waits while Redis is away, as the end of the task would have to. Outside a worker there
        is no attempt that could follow, and nothing is kept.

        Args:
            state: a JSON value, by the rules of task arguments.

        Raises:
            PayloadError: it cannot be serialised, or is too large for where it would go.
            StaleFenceError: the task runs elsewhere by now, or has ended: stop.
            CheckpointError: it is too large for Redis, and its file cannot be written.
        """
        if self._checkpoints:
            self._checkpoints.save(state)
        else:
            encode(state)

    async def set_partial(self, state: object) -> None:
        """Save how far the task has come, from asyncio code; like :meth:`save_partial`."""
        if self._checkpoints:
            await self._checkpoints.asave(state)
        else:
            encode(state)


_OURS = "rl_"
_current: ContextVar[TaskContext | None] = ContextVar("relier_task_context", default=None)


def task_context() -> TaskContext:
    """Return the context of the task that runs here, anywhere below its function.

    `asyncio.to_thread` takes it along into its thread; a thread that the task starts by itself
    needs to be run in the task's context: ``Thread(target=copy_context().run, args=(work,))``.

    Raises:
        ConfigurationError: no task made by ``rl_task`` is running.
    """
    context = _current.get()
    if context is None:
        raise ConfigurationError(
            "task_context() works inside a task made by @rl_task; in a thread of your own, run "
            "the work by contextvars.copy_context().run, or hand the context over"
        )
    return context


def context_of(task: Any) -> TaskContext:
    """Return the context of a task's present request."""
    request = task.request
    run = getattr(request, "relier_run", None)
    if run:
        run.checkpoints = Checkpoints(
            task.app.relier.broker,
            run.claim,
            run.identity.task_id,
            run.started,
            run.beginning,
        )
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
        metadata=_metadata(request.headers),
        _checkpoints=run.checkpoints if run else None,
    )


def _metadata(headers: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Return the headers that are the user's own."""
    return MappingProxyType(
        {
            name: value
            for name, value in (headers or {}).items()
            if name != REQUEST_KEY and not name.startswith(_OURS)
        }
    )


current = _current
