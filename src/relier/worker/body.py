"""Run a task's function; every way in which it can end is a value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from billiard.einfo import ExceptionInfo
from celery import states
from celery.app.task import Context
from celery.app.trace import task_has_custom
from celery.exceptions import (
    Ignore,
    InvalidTaskError,
    Reject,
    Retry,
    WorkerShutdown,
    WorkerTerminate,
)
from celery.utils.serialization import get_pickleable_etype, get_pickleable_exception

from relier.errors import HardTimeoutError, SchemaMigrationError
from relier.protocol import migrations
from relier.protocol.migrations import VERSION_HEADER, SchemaRegistry
from relier.protocol.outcome import FAILED, HARD_TIMEOUT, MIGRATION, REJECTED
from relier.protocol.timeouts import overdue
from relier.worker import replay, versions
from relier.worker.ended import Ended
from relier.worker.publish import held_back
from relier.worker.run import Run
from relier.worker.timeouts import Timekeeper
from relier.worker.timing import timing_of


class Body:
    """The body of one task.

    Args:
        task: the task.
        keeper: holds its runs to their timeouts.
    """

    def __init__(self, task: Any, keeper: Timekeeper) -> None:
        self._task = task
        self._keeper = keeper
        self._timing = timing_of(task)
        self._call = task if task_has_custom(task, "__call__") else task.run
        self._publishes_late = bool(getattr(task, "publishes_late", False))

    def run(self, run: Run) -> Ended:
        """Run it under a started claim, and within its timeouts."""
        ended = self._end(run)
        if run.timed is not None and run.timed.expired:
            return self._timed_out(run, ended)
        return ended

    def _end(self, run: Run) -> Ended:
        request = run.request
        try:
            if not isinstance(request.kwargs, Mapping):
                raise InvalidTaskError("Task keyword arguments is not a mapping")
            value = self.within_limits(run, self._run_function)
        except Retry as error:
            return Ended(states.RETRY, error, ExceptionInfo())
        except Reject as error:
            if error.requeue:
                replay.publish_again(run.task, request, run.outbox)
            letter = "" if error.requeue or not run.task.dead_letter else REJECTED
            return Ended(states.REJECTED, error, ExceptionInfo(internal=True), letter)
        except Ignore as error:
            return Ended(states.IGNORED, error, ExceptionInfo(internal=True))
        except (WorkerShutdown, WorkerTerminate, KeyboardInterrupt):
            raise
        except BaseException as error:  # noqa: BLE001 - whatever the task raises is its outcome
            return failed(self._task, error)
        if any(message.task_id == request.id for _, message in run.outbox.messages):
            # retry(throw=False): the body returned, but the task goes on as its next generation.
            return Ended(states.RETRY, Retry("retried without raising"), None)
        return Ended(states.SUCCESS, value)

    def _run_function(self, run: Run) -> Any:
        task, request = run.task, run.request
        self.migrate(request)
        if task_has_custom(task, "before_start"):
            task.before_start(request.id, request.args, request.kwargs)
        if self._publishes_late:
            with held_back(run.outbox):
                return self._call(*request.args, **request.kwargs)
        return self._call(*request.args, **request.kwargs)

    def is_of_another_version(self, request: Context) -> bool:
        """Return whether the arguments are not in the shape that the body takes here."""
        return versions.of_message(vars(request)) != SchemaRegistry.version(self._task.name)

    def migrate(self, request: Context) -> None:
        """Bring the arguments into the shape that the body takes, if they are not in it.

        It is done under the started claim and its time limits, so that a migration which hangs or
        kills its process is bounded like a body that does. An idempotent call's key has to be known
        before its body runs, and is that of its present arguments.
        """
        name = self._task.name
        version, ours = versions.of_message(vars(request)), SchemaRegistry.version(name)
        if version > ours:
            raise migrations.newer(name, version, ours)
        if version < ours:
            request.args, request.kwargs = SchemaRegistry.migrate(
                name, version, request.args, request.kwargs
            )
            setattr(request, VERSION_HEADER, ours)

    def within_limits(self, run: Run, call: Callable[[Run], Any]) -> Any:
        """Run code of the user's under the task's time limits, if it has any."""
        if self._timing is None:
            return call(run)
        timed = run.timed = self._keeper.timed(self._timing, run.claim, run.request.id)
        try:
            try:
                timed.begin()
                return call(run)
            finally:
                # By itself: an interruption may arrive on this very line.
                timed.leave_body()
        finally:
            timed.end()

    def _timed_out(self, run: Run, ended: Ended) -> Ended:
        """Return the end of a coroutine that was cancelled, whatever it made of that."""
        assert self._timing is not None
        # A retry would begin the same anew: it is stopped for good.
        run.outbox.messages.clear()
        run.replaced = False
        message = overdue(run.task.name, self._timing.limits.hard_s or 0.0)
        try:
            raise HardTimeoutError(message) from (
                ended.value if isinstance(ended.value, BaseException) else None
            )
        except HardTimeoutError as error:
            return failed(self._task, error)._replace(letter=HARD_TIMEOUT)


def failed(task: Any, error: BaseException) -> Ended:
    """Return how a task ends by an exception."""
    cause = get_pickleable_exception(error)
    if cause.__traceback__ is None:
        cause.__traceback__ = error.__traceback__
    etype = get_pickleable_etype(type(error))
    einfo = ExceptionInfo(exc_info=(etype, cause, cause.__traceback__))
    letter = FAILED if task.dead_letter else ""
    if isinstance(error, SchemaMigrationError):
        letter = MIGRATION
    return Ended(states.FAILURE, cause, einfo, letter)
