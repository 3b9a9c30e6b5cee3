"""Tell handlers, signals, the log and Celery's main process how a task ended."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from celery import signals, states
from celery.app.trace import (
    LOG_SUCCESS,
    TraceInfo,
    get_task_name,
    info,
    task_has_custom,
    trace_ok_t,
)
from celery.exceptions import Ignore
from celery.utils.saferepr import saferepr
from kombu.utils.encoding import safe_repr

from relier.worker import replay
from relier.worker.ended import Ended, NotRunError

if TYPE_CHECKING:
    from relier.worker.run import Run

logger = logging.getLogger(__name__)
trace_logger = logging.getLogger("celery.app.trace")


def tell(run: Run, ended: Ended) -> None:
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


def _tell_success(run: Run, ended: Ended) -> None:
    task, request = run.task, run.request
    runtime_s = time.monotonic() - run.started_at
    if task_has_custom(task, "on_success"):
        try:
            task.on_success(ended.value, request.id, request.args, request.kwargs)
        except Exception:  # nor can a hook's
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


def _tell_revoked(run: Run, ended: Ended) -> None:
    if ended.value is None:
        return  # terminated: the process that did it has told
    reason = str(ended.value)
    signals.task_revoked.send(
        sender=run.task,
        request=run.request,
        terminated=False,
        signum=None,
        expired=reason == "expired",
    )
    logger.info("%s[%s] did not run: it is %s", run.task.name, run.request.id, reason)


_TELL: dict[str, Callable[[Run, Ended], None]] = {
    states.SUCCESS: _tell_success,
    states.FAILURE: _tell_failure,
    states.RETRY: _tell_retry,
    states.IGNORED: _tell_logged,
    states.REJECTED: _tell_logged,
    states.REVOKED: _tell_revoked,
}


def answer(run: Run, ended: Ended) -> Any:
    """Return what Celery's main process is to hear; it only frees credit and sends events."""
    runtime_s = time.monotonic() - run.started_at
    if ended.state == states.SUCCESS:
        text = saferepr(ended.value, run.task.resultrepr_maxsize)
        return trace_ok_t(ended.value, None, runtime_s, text)
    if ended.state == states.REVOKED and ended.value is not None:
        not_run = NotRunError(str(ended.value))
        heard = TraceInfo(ended.state, not_run)
        return trace_ok_t(replay.as_einfo(not_run), heard, runtime_s, None)
    if ended.state in (states.IGNORED, states.REJECTED, states.REVOKED):
        return ignored()
    if ended.state == states.RETRY and ended.einfo is None:
        return ignored()
    einfo = ended.einfo
    if isinstance(ended.value, SystemExit | MemoryError):
        # Handed over as they are, these would end Celery's main process.
        einfo = replay.as_einfo(RuntimeError(f"{type(ended.value).__name__}: {ended.value}"))
    return trace_ok_t(einfo, TraceInfo(ended.state, ended.value), runtime_s, None)


def ignored() -> Any:
    """Return the answer that makes Celery free the message's credit and say no more."""
    ignore = Ignore()
    return trace_ok_t(replay.as_einfo(ignore), TraceInfo(states.IGNORED, ignore), 0.0, None)
