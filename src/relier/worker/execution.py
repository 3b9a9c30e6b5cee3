"""Run one task under its claim: start, body, commit, consequences, ack.

This takes the place of Celery's tracer for protected tasks: the same signals, handlers and results,
but nothing happens before ``start`` says yes, and no consequence before the commit.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from billiard.einfo import ExceptionInfo
from celery import signals, states
from celery._state import _task_stack
from celery.app.task import Context, get_actual_ignore_result
from celery.app.trace import (
    LOG_SUCCESS,
    TraceInfo,
    get_task_name,
    info,
    task_has_custom,
    trace_ok_t,
    traceback_clear,
)
from celery.exceptions import (
    Ignore,
    InvalidTaskError,
    Reject,
    Retry,
    WorkerShutdown,
    WorkerTerminate,
)
from celery.utils.saferepr import saferepr
from celery.utils.serialization import get_pickleable_etype, get_pickleable_exception
from kombu.exceptions import EncodeError
from kombu.utils.encoding import safe_repr

from relier.errors import RedisConnectionError
from relier.protocol import identity
from relier.protocol.identity import Claim, Identity
from relier.protocol.outcome import Outcome
from relier.store import running
from relier.store.broker import Broker
from relier.store.operations import Operation
from relier.store.running import Started
from relier.worker import consequences, fusion, replay
from relier.worker.ended import Ended
from relier.worker.grip import REQUEST_KEY, Grip
from relier.worker.publish import Consequence, Outbox

logger = logging.getLogger(__name__)
trace_logger = logging.getLogger("celery.app.trace")
T = TypeVar("T")

_RETRY_PAUSE_S = 0.2
_COMPLAIN_EVERY_S = 5.0


class Run:
    """One execution of one task under one claim."""

    __slots__ = (
        "claim",
        "grip",
        "identity",
        "outbox",
        "replaced",
        "request",
        "started",
        "started_at",
        "task",
    )

    def __init__(self, task: Any, request: Context, grip: Grip, who: Identity) -> None:
        self.task = task
        self.request = request
        self.grip = grip
        self.claim: Claim = grip.claim
        self.identity = who
        self.outbox = Outbox()
        self.replaced = False
        self.started: Started = Started("stale")
        self.started_at = time.monotonic()

    @property
    def parent(self) -> Consequence:
        """Return the parent that this run's consequences name."""
        return Consequence(self.started.root, self.identity.task_id, self.started.generation)


class Execution:
    """The trace function of one protected task.

    Args:
        task: the task.
        broker: the broker its messages come from.
        celery_trace: Celery's own trace function, for runs without a claim.
    """

    def __init__(self, task: Any, broker: Broker, celery_trace: Callable[..., Any]) -> None:
        self._task = task
        self._broker = broker
        self._celery_trace = celery_trace
        self._pid = os.getpid()
        self._fused = fusion.fused(task.backend, broker.address)
        self._call = task if task_has_custom(task, "__call__") else task.run

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
        run.started = self._persist(self._start_operation(run), run)
        if run.started.verdict not in ("run", "replay"):
            return self._skipped(run)
        task, request = run.task, run.request
        _task_stack.push(task)
        task.request_stack.push(request)
        request.relier_run = run
        ended: Ended | None = None
        try:
            if run.started.verdict == "replay":
                return self._replayed(run)
            self._announce(run)
            ended = self._body(run)
            return self._settle(run, ended)
        finally:
            self._clean_up(run, ended)

    def _start_operation(self, run: Run) -> Operation[Started]:
        most = getattr(run.task, "max_resurrections", None)
        return running.start(self._broker.keys, run.claim, run.identity, most)

    def _announce(self, run: Run) -> None:
        """Tell the world that the task begins; only now, for ``start`` said yes."""
        task, request = run.task, run.request
        if signals.task_prerun.receivers:
            signals.task_prerun.send(
                sender=task, task_id=request.id, task=task, args=request.args, kwargs=request.kwargs
            )
        task.app.loader.on_task_init(request.id, task)
        if task.track_started and not get_actual_ignore_result(task, request):
            meta = {"pid": self._pid, "hostname": request.hostname}
            task.backend.store_result(request.id, meta, states.STARTED, request=request)

    def _body(self, run: Run) -> Ended:
        """Run the user's function; every way it can end is a value."""
        task, request = run.task, run.request
        try:
            if not isinstance(request.kwargs, Mapping):
                raise InvalidTaskError("Task keyword arguments is not a mapping")
            if task_has_custom(task, "before_start"):
                task.before_start(request.id, request.args, request.kwargs)
            value = self._call(*request.args, **request.kwargs)
        except Retry as error:
            return Ended(states.RETRY, error, ExceptionInfo())
        except Reject as error:
            if error.requeue:
                replay.publish_again(run.task, request, run.outbox)
            return Ended(states.REJECTED, error, ExceptionInfo(internal=True))
        except Ignore as error:
            return Ended(states.IGNORED, error, ExceptionInfo(internal=True))
        except (WorkerShutdown, WorkerTerminate):
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever the task raises is its outcome
            return self._failed(error)
        if any(message.task_id == request.id for _, message in run.outbox.messages):
            # retry(throw=False): the body returned, but the task goes on as its next generation.
            return Ended(states.RETRY, Retry("retried without raising"), None)
        return Ended(states.SUCCESS, value)

    def _failed(self, error: BaseException) -> Ended:
        cause = get_pickleable_exception(error)
        if cause.__traceback__ is None:
            cause.__traceback__ = error.__traceback__
        etype = get_pickleable_etype(type(error))
        return Ended(
            states.FAILURE, cause, ExceptionInfo(exc_info=(etype, cause, cause.__traceback__))
        )

    def _settle(self, run: Run, ended: Ended) -> Any:
        """Commit, let the consequences follow, and answer Celery."""
        try:
            committed = self._commit(run, ended)
        except EncodeError as error:
            ended = self._failed(error)
            committed = self._commit(run, ended)
        if not committed:
            return self._lost(run)
        self._tell(run, ended)
        return _answer(run, ended)

    def _commit(self, run: Run, ended: Ended) -> bool:
        task, request = run.task, run.request
        stores = self._stores(run, ended)
        if self._nothing_follows(run, ended, stores):
            result = None
            if stores:
                result = fusion.stored_result(
                    task.backend, request, ended.state, ended.value, ended.traceback or None
                )
            keys = self._broker.keys
            return self._persist(
                running.finish(keys, run.claim, request.id, ended.state, result), run
            )
        saved = replay.saved(task, run.outbox, request.id, ended, replaced=run.replaced)
        operation = running.commit(
            self._broker.keys, run.claim, request.id, ended.state, replay.encode(saved)
        )
        if not self._persist(operation, run):
            return False
        self._send_and_ack(run, ended, saved, again=False)
        return True

    def _stores(self, run: Run, ended: Ended) -> bool:
        """Return whether this end leaves a result in the backend."""
        ignored = get_actual_ignore_result(run.task, run.request)
        if ended.state == states.IGNORED:
            return False
        if ended.state == states.REJECTED and ended.value.requeue:
            return False
        if ended.state == states.SUCCESS:
            return not ignored
        return not ignored or bool(run.task.store_errors_even_if_ignored)

    def _nothing_follows(self, run: Run, ended: Ended, stores: bool) -> bool:
        request = run.request
        going_on = run.replaced or bool(run.outbox.messages)
        if going_on or ended.state in (states.RETRY, states.REJECTED):
            return False
        if stores and not self._fused:
            return False
        if ended.state == states.SUCCESS:
            return not (request.callbacks or request.chain or request.chord)
        if ended.state == states.FAILURE:
            return not (request.errbacks or request.chain or request.chord)
        return True

    def _send_and_ack(self, run: Run, ended: Ended, saved: Outcome, *, again: bool) -> None:
        """Send what follows, then end the claim; on failure others will send it again."""
        try:
            self._send(run, ended, saved, again=again)
        except Exception as error:  # whatever a backend or a publish raises, the commit stands
            logger.exception(
                "%s[%s] is committed, but what follows from it could not be sent; "
                "it will be sent again",
                run.identity.name,
                run.identity.task_id,
            )
            keys = self._broker.keys
            reason = f"{type(error).__name__}: {error}"[:500]
            self._persist(running.abandon(keys, run.claim, run.identity.task_id, reason), run)
            return
        self._persist(replay.ack(self._broker.keys, run.claim, run.identity, saved), run)

    def _send(self, run: Run, ended: Ended, saved: Outcome, *, again: bool) -> None:
        task, request, stores = run.task, run.request, self._stores(run, ended)
        consequences.send_held_back(self._broker, replay.held_back(saved))
        if ended.state == states.SUCCESS:
            consequences.send_success(
                task, request, ended.value, run.parent, store_result=stores, again=again
            )
        elif ended.state == states.RETRY:
            if stores:
                error = getattr(ended.value, "exc", None)
                task.backend.mark_as_retry(request.id, error, ended.traceback, request=request)
        elif ended.state == states.REVOKED:
            consequences.send_revoked(task, request, run.parent, store_result=stores, again=again)
        elif ended.state == states.FAILURE or (
            ended.state == states.REJECTED and not saved.next and not ended.value.requeue
        ):
            consequences.send_failure(
                task,
                request,
                ended.value,
                ended.traceback,
                run.parent,
                store_result=stores,
                again=again,
            )

    def _replayed(self, run: Run) -> Any:
        """Send the consequences of an outcome that another process committed."""
        if run.grip.replays > self._broker.settings.max_interruptions:
            letter = {"reason": "consequences", "name": run.identity.name}
            letter["error"] = f"what follows from it could not be sent {run.grip.replays} times"
            operation = running.ack_dead(self._broker.keys, run.claim, run.identity.task_id, letter)
            self._persist(operation, run)
            return _ignored()
        saved = replay.decode(run.grip.outcome or b"")
        ended = replay.read(run.task, run.grip.outcome or b"")
        self._send_and_ack(run, ended, saved, again=True)
        logger.info(
            "%s[%s] had ended as %s when its process died; sent what follows from it",
            run.identity.name,
            run.identity.task_id,
            saved.state,
        )
        self._tell(run, ended)
        return _answer(run, ended)

    # -- telling

    def _tell(self, run: Run, ended: Ended) -> None:
        """Call the handlers and signals of the outcome. They see it; they cannot change it."""
        try:
            _TELL[ended.state](run, ended)
            if ended.state in (states.SUCCESS, states.FAILURE) and (
                task_has_custom(run.task, "after_return")
            ):
                request = run.request
                run.task.after_return(
                    ended.state, ended.value, request.id, request.args, request.kwargs, ended.einfo
                )
        except Exception:  # a handler's error cannot undo a commit
            logger.exception(
                "a handler of %s[%s] raised after the task had ended",
                run.identity.name,
                run.identity.task_id,
            )

    def _clean_up(self, run: Run, ended: Ended | None) -> None:
        task, request = run.task, run.request
        try:
            if ended and run.started.verdict == "run" and signals.task_postrun.receivers:
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
                task.backend.process_cleanup()
                task.app.loader.on_process_cleanup()
            except Exception:
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
        return _ignored()

    def _lost(self, run: Run) -> Any:
        logger.warning(
            "%s[%s] ran, but commits nothing: claim %s is not this worker's any more and its "
            "fence %s is stale",
            run.identity.name,
            run.identity.task_id,
            run.claim.number,
            run.started.fence,
        )
        return _ignored()

    def _persist(self, operation: Operation[T], run: Run) -> T:
        """Run an operation until Redis answers; the claim is ours until somebody reaps it."""
        complained = 0.0
        while True:
            try:
                return self._broker.store.run(operation)
            except RedisConnectionError as error:
                if time.monotonic() - complained > _COMPLAIN_EVERY_S:
                    complained = time.monotonic()
                    logger.warning(
                        "%s[%s] waits for Redis to %s: %s",
                        run.identity.name,
                        run.identity.task_id,
                        operation.script.name,
                        error,
                    )
                time.sleep(_RETRY_PAUSE_S)


def _tell_success(run: Run, ended: Ended) -> None:
    task, request = run.task, run.request
    runtime_s = time.monotonic() - run.started_at
    if task_has_custom(task, "on_success"):
        try:
            task.on_success(ended.value, request.id, request.args, request.kwargs)
        except Exception:
            logger.exception("on_success of %s[%s] raised", task.name, request.id)
    if signals.task_success.receivers:
        signals.task_success.send(sender=task, result=ended.value, runtime=runtime_s)
    if trace_logger.isEnabledFor(logging.INFO):
        info(
            LOG_SUCCESS,
            {
                "id": request.id,
                "name": get_task_name(request, task.name),
                "return_value": saferepr(ended.value, task.resultrepr_maxsize),
                "runtime": runtime_s,
                "args": request.get("argsrepr") or safe_repr(request.args),
                "kwargs": request.get("kwargsrepr") or safe_repr(request.kwargs),
            },
        )


def _tell_failure(run: Run, ended: Ended) -> None:
    task, request = run.task, run.request
    if ended.einfo is None:
        return
    task.on_failure(ended.value, request.id, request.args, request.kwargs, ended.einfo)
    signals.task_failure.send(
        sender=task,
        task_id=request.id,
        exception=ended.value,
        args=request.args,
        kwargs=request.kwargs,
        traceback=ended.value.__traceback__,
        einfo=ended.einfo,
    )
    TraceInfo(ended.state, ended.value)._log_error(task, request, ended.einfo)


def _tell_retry(run: Run, ended: Ended) -> None:
    task, request, reason = run.task, run.request, ended.value
    task.on_retry(reason.exc, request.id, request.args, request.kwargs, ended.einfo)
    signals.task_retry.send(sender=task, request=request, reason=reason, einfo=ended.einfo)
    logger.info("%s[%s] retry: %s", task.name, request.id, reason)


def _tell_logged(run: Run, ended: Ended) -> None:
    if ended.einfo is not None:
        TraceInfo(ended.state, ended.value)._log_error(run.task, run.request, ended.einfo)


_TELL: dict[str, Callable[[Run, Ended], None]] = {
    states.SUCCESS: _tell_success,
    states.FAILURE: _tell_failure,
    states.RETRY: _tell_retry,
    states.IGNORED: _tell_logged,
    states.REJECTED: _tell_logged,
    states.REVOKED: _tell_logged,
}


def _answer(run: Run, ended: Ended) -> Any:
    """Return what Celery's main process is to hear; it only frees credit and sends events."""
    runtime_s = time.monotonic() - run.started_at
    if ended.state == states.SUCCESS:
        text = saferepr(ended.value, run.task.resultrepr_maxsize)
        return trace_ok_t(ended.value, None, runtime_s, text)
    if ended.state in (states.IGNORED, states.REJECTED, states.REVOKED):
        return _ignored()
    if ended.state == states.RETRY and ended.einfo is None:
        return _ignored()
    einfo = ended.einfo
    if isinstance(ended.value, SystemExit | MemoryError):
        # Handed over as they are, these would end Celery's main process.
        einfo = replay.as_einfo(RuntimeError(f"{type(ended.value).__name__}: {ended.value}"))
    return trace_ok_t(einfo, TraceInfo(ended.state, ended.value), runtime_s, None)


def _ignored() -> Any:
    """Return the answer that makes Celery free the message's credit and say no more."""
    ignore = Ignore()
    return trace_ok_t(replay.as_einfo(ignore), TraceInfo(states.IGNORED, ignore), 0.0, None)
