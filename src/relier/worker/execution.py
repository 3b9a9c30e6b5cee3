"""Run one task under its claim: start, body, commit, consequences, ack.

This takes the place of Celery's tracer for protected tasks: the same signals, handlers and results,
but nothing happens before ``start`` says yes, and no consequence before the commit.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from typing import Any

from celery import signals, states
from celery._state import _task_stack
from celery.app.task import Context, get_actual_ignore_result
from celery.app.trace import traceback_clear
from celery.exceptions import TaskRevokedError

from relier.protocol import identity
from relier.protocol.outcome import printable
from relier.store import reaping
from relier.worker import replay, telling, versions
from relier.worker.beginning import Beginning
from relier.worker.body import Body, failed
from relier.worker.ended import Ended
from relier.worker.grip import REQUEST_KEY
from relier.worker.publish import REDELIVERED_HEADER
from relier.worker.run import Run, persist
from relier.worker.settling import Settling
from relier.worker.timeouts import Timekeeper

logger = logging.getLogger(__name__)


class Execution:
    """The trace function of one protected task.

    Args:
        task: the task.
        keeper: holds its executions to their timeouts, and knows the broker.
        celery_trace: Celery's own trace function, for runs without a claim.
    """

    def __init__(self, task: Any, keeper: Timekeeper, celery_trace: Callable[..., Any]) -> None:
        self._task = task
        self._broker = keeper.broker
        self._body = Body(task, keeper)
        self._beginning = Beginning(task, keeper.broker, self._body)
        self._settling = Settling(task, keeper.broker)
        self._celery_trace = celery_trace
        self._pid = os.getpid()

    def __call__(
        self, uuid: str, args: Any, kwargs: Any, request: Mapping[str, Any] | None = None
    ) -> Any:
        """Trace one execution; Celery reads the returned ``trace_ok_t``."""
        grip = (request or {}).get(REQUEST_KEY)
        if grip is None:
            return self._celery_trace(uuid, args, kwargs, request)
        context = Context(request or {}, args=args, called_directly=False, kwargs=kwargs)
        who = identity.identify({**(context.headers or {}), **(request or {})}, grip.delivery_tag)
        run = Run(self._task, context, grip, who)
        return self._execute(run)

    # -- the steps

    def _execute(self, run: Run) -> Any:
        keyless = self._beginning.begin(run)
        if run.started.verdict not in ("run", "replay"):
            return self._skipped(run)
        task, request = run.task, run.request
        _task_stack.push(task)
        task.request_stack.push(request)
        request.relier_run = run
        ended: Ended | None = None
        try:
            versions.stamp_received(request)
            if run.started.verdict == "replay":
                replayed = self._settling.replay(run)
                return telling.ignored() if replayed is None else self._told(run, replayed)
            ended = self._end_without_running(run, keyless)
            if ended is None:
                self._tell_if_redelivered(run)
                self._announce(run)
                ended = self._body.run(run)
            settled = self._settling.settle(run, ended)
            if settled is None:
                return self._lost(run)
            ended = settled
            return self._told(run, ended)
        except Exception as error:  # noqa: BLE001 - the claim must not be lost with the exception
            return self._surrender(run, error)
        finally:
            self._clean_up(run, ended)

    def _end_without_running(self, run: Run, keyless: BaseException | None) -> Ended | None:
        """Return the end of a task whose body is not to run."""
        revoked = run.grip.revoked or run.started.revoked
        if revoked:
            return Ended(states.REVOKED, TaskRevokedError(revoked))
        if keyless is not None:
            return failed(run.task, keyless)
        if run.started.done:
            return replay.read_value(run.task.app, run.started.done)
        return None

    def _tell_if_redelivered(self, run: Run) -> None:
        """Say in the task's delivery info, as kombu would, that it was delivered before.

        Of a later generation it is not known whether a process died under that very one.
        """
        request, started = run.request, run.started
        if request.get(REDELIVERED_HEADER) or (started.returns and not started.generation):
            request.delivery_info = {**(request.delivery_info or {}), "redelivered": True}

    def _announce(self, run: Run) -> None:
        """Tell the world that the task begins; only now, for ``start`` said yes."""
        task, request = run.task, run.request
        run.announced = True
        if signals.task_prerun.receivers:
            signals.task_prerun.send(
                sender=task, task_id=request.id, task=task, args=request.args, kwargs=request.kwargs
            )
        task.app.loader.on_task_init(request.id, task)
        if task.track_started and not get_actual_ignore_result(task, request):
            meta = {"pid": self._pid, "hostname": request.hostname}
            try:
                task.backend.store_result(request.id, meta, states.STARTED, request=request)
            except Exception:
                # Only people look at it: the task must run though the backend is away.
                logger.exception("could not store STARTED for %s[%s]", task.name, request.id)

    def _told(self, run: Run, ended: Ended) -> Any:
        """Tell who listens how it ended, and answer Celery."""
        if run.started.done and ended.state == states.SUCCESS:
            logger.info(
                "%s[%s] did not run: it has the result of an earlier call with the same key",
                run.identity.name,
                run.identity.task_id,
            )
        else:
            telling.tell(run, ended)
        return telling.answer(run, ended)

    # -- after

    def _clean_up(self, run: Run, ended: Ended | None) -> None:
        task, request = run.task, run.request
        try:
            if ended and run.announced and signals.task_postrun.receivers:
                signals.task_postrun.send(
                    sender=task,
                    task_id=request.id,
                    task=task,
                    args=request.args,
                    kwargs=request.kwargs,
                    retval=ended.value,
                    state=ended.state,
                )
        finally:
            request.relier_run = None
            _task_stack.pop()
            task.request_stack.pop()
            try:
                if run.checkpoints is not None:
                    run.checkpoints.tidy()
                task.backend.process_cleanup()
                task.app.loader.on_process_cleanup()
            except Exception:
                # Its task has ended, and the process is fit for the next one all the same.
                logger.exception("process cleanup failed")
            if ended is not None and ended.einfo is not None:
                traceback_clear(ended.value)

    # -- what is not run, or not committed

    def _skipped(self, run: Run) -> Any:
        verdict, who = run.started.verdict, run.identity
        if verdict == "stale":
            logger.warning(
                "%s[%s] does not start here: claim %s is not this worker's any more",
                who.name,
                who.task_id,
                run.claim.number,
            )
        else:
            logger.info("%s[%s] does not start here: %s", who.name, who.task_id, verdict)
        return telling.ignored()

    def _lost(self, run: Run) -> Any:
        logger.warning(
            "%s[%s] ran, but commits nothing: claim %s is not this worker's any more and its "
            "fence %s is stale",
            run.identity.name,
            run.identity.task_id,
            run.claim.number,
            run.started.fence,
        )
        return telling.ignored()

    def _surrender(self, run: Run, error: Exception) -> Any:
        """Give up a claim whose run failed outside the task's body, as if its process had died."""
        logger.critical(
            "%s[%s] failed outside its body; it goes back to its queue",
            run.identity.name,
            run.identity.task_id,
            exc_info=error,
        )
        reason = printable(f"internal: {error!r}", 200)
        rules = self._broker.reap_rules
        operation = reaping.reap_claim(self._broker.keys, run.claim, reason, rules)
        persist(self._broker, operation, run)
        return telling.ignored()
