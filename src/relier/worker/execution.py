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
    task_has_custom,
    traceback_clear,
)
from celery.exceptions import (
    Ignore,
    InvalidTaskError,
    Reject,
    Retry,
    TaskRevokedError,
    WorkerShutdown,
    WorkerTerminate,
)
from celery.utils.serialization import get_pickleable_etype, get_pickleable_exception

from relier.errors import HardTimeoutError, RedisConnectionError, SchemaMigrationError
from relier.protocol import identity, migrations
from relier.protocol.identity import Claim, Identity
from relier.protocol.migrations import VERSION_HEADER, SchemaRegistry
from relier.protocol.outcome import HARD_TIMEOUT, MIGRATION, REJECTED, Outcome, printable
from relier.protocol.timeouts import overdue
from relier.store import reaping, running
from relier.store.operations import Operation
from relier.store.running import Kept, Started
from relier.worker import consequences, fusion, replay, telling, versions
from relier.worker.checkpoints import Checkpoints
from relier.worker.ended import Ended
from relier.worker.grip import REQUEST_KEY, Grip
from relier.worker.idempotency import call_key
from relier.worker.publish import REDELIVERED_HEADER, Consequence, Outbox, held_back
from relier.worker.timeouts import Timed, Timekeeper
from relier.worker.timing import timing_of
from relier.worker.trouble import may_pass

logger = logging.getLogger(__name__)
trace_logger = logging.getLogger("celery.app.trace")
T = TypeVar("T")

_RETRY_PAUSE_S = 0.2
_PAUSES_S = (1, 2, 4, 8, 16, 32)
_LONGEST_PAUSE_S = 32
_COMPLAIN_EVERY_S = 5.0


class Run:
    """One execution of one task under one claim."""

    __slots__ = (
        "announced",
        "beginning",
        "checkpoints",
        "claim",
        "grip",
        "identity",
        "key",
        "outbox",
        "replaced",
        "request",
        "started",
        "started_at",
        "task",
        "timed",
    )

    def __init__(self, task: Any, request: Context, grip: Grip, who: Identity) -> None:
        self.task = task
        self.request = request
        self.grip = grip
        self.claim: Claim = grip.claim
        self.identity = who
        self.outbox = Outbox()
        self.replaced = False
        self.key = ""
        self.announced = False
        self.beginning: Operation[Started] | None = None
        self.checkpoints: Checkpoints | None = None
        self.started: Started = Started("stale")
        self.started_at = time.monotonic()
        self.timed: Timed | None = None

    @property
    def parent(self) -> Consequence:
        """Return the parent that this run's consequences name."""
        return Consequence(self.started.root, self.identity.task_id, self.started.generation)


class Execution:
    """The trace function of one protected task.

    Args:
        task: the task.
        keeper: holds its executions to their timeouts, and knows the broker.
        celery_trace: Celery's own trace function, for runs without a claim.
    """

    def __init__(self, task: Any, keeper: Timekeeper, celery_trace: Callable[..., Any]) -> None:
        self._task = task
        self._keeper = keeper
        self._timing = timing_of(task)
        broker = self._broker = keeper.broker
        self._celery_trace = celery_trace
        self._pid = os.getpid()
        self._fused = fusion.fused(task.backend, broker.address)
        self._call_key = call_key(task)
        self._call = task if task_has_custom(task, "__call__") else task.run
        self._publishes_late = bool(getattr(task, "publishes_late", False))

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
        keyless = self._find_key(run)
        run.beginning = self._start_operation(run)
        run.started = self._persist(run.beginning, run)
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
                return self._replayed(run)
            ended = self._end_without_running(run, keyless)
            if ended is None:
                self._tell_if_redelivered(run)
                self._announce(run)
                ended = self._body(run)
                if run.timed is not None and run.timed.expired:
                    ended = self._timed_out(run, ended)
            return self._settle(run, ended)
        except Exception as error:  # noqa: BLE001 - the claim must not be lost with the exception
            return self._surrender(run, error)
        finally:
            self._clean_up(run, ended)

    def _end_without_running(self, run: Run, keyless: Exception | None) -> Ended | None:
        """Return the end of a task whose body is not to run."""
        revoked = run.grip.revoked or ("revoked" if run.started.revoked else "")
        if revoked:
            return Ended(states.REVOKED, TaskRevokedError(revoked))
        if keyless is not None:
            return self._failed(keyless)
        if run.started.done:
            return replay.read_value(run.task.app, run.started.done)
        return None

    def _find_key(self, run: Run) -> Exception | None:
        """Find the call's idempotency key; what stands in the way of it fails the task."""
        if self._call_key is None:
            return None
        try:
            self._migrate(run.request)
            run.key = self._call_key.of(run.request.args, run.request.kwargs)
        except Exception as error:  # noqa: BLE001 - the task's own function may say the key
            return error
        return None

    def _start_operation(self, run: Run) -> Operation[Started]:
        return running.start(
            self._broker.keys,
            run.claim,
            run.identity,
            own_limit=getattr(run.task, "max_resurrections", None),
            max_resurrections=self._broker.settings.max_resurrections,
            idempotency_key=run.key,
        )

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

    def _body(self, run: Run) -> Ended:
        """Run the user's function; every way it can end is a value."""
        request = run.request
        try:
            if not isinstance(request.kwargs, Mapping):
                raise InvalidTaskError("Task keyword arguments is not a mapping")
            value = self._run_function(run) if self._timing is None else self._run_timed(run)
        except Retry as error:
            return Ended(states.RETRY, error, ExceptionInfo())
        except Reject as error:
            if error.requeue:
                replay.publish_again(run.task, request, run.outbox)
            letter = "" if error.requeue else REJECTED
            return Ended(states.REJECTED, error, ExceptionInfo(internal=True), letter)
        except Ignore as error:
            return Ended(states.IGNORED, error, ExceptionInfo(internal=True))
        except (WorkerShutdown, WorkerTerminate, KeyboardInterrupt):
            raise
        except BaseException as error:  # noqa: BLE001 - whatever the task raises is its outcome
            return self._failed(error)
        if any(message.task_id == request.id for _, message in run.outbox.messages):
            # retry(throw=False): the body returned, but the task goes on as its next generation.
            return Ended(states.RETRY, Retry("retried without raising"), None)
        return Ended(states.SUCCESS, value)

    def _run_function(self, run: Run) -> Any:
        task, request = run.task, run.request
        self._migrate(request)
        if task_has_custom(task, "before_start"):
            task.before_start(request.id, request.args, request.kwargs)
        if self._publishes_late:
            with held_back(run.outbox):
                return self._call(*request.args, **request.kwargs)
        return self._call(*request.args, **request.kwargs)

    def _migrate(self, request: Context) -> None:
        """Bring the arguments into the shape that the body takes, if they are not in it.

        It is done under the started claim and its time limits, so that a migration which hangs or
        kills its process is bounded like a body that does; an idempotent call's key, though, is
        found before its start, and is that of its present arguments.
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

    def _run_timed(self, run: Run) -> Any:
        assert self._timing is not None
        timed = run.timed = self._keeper.timed(self._timing, run.claim, run.request.id)
        try:
            try:
                timed.begin()
                return self._run_function(run)
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
            return self._failed(error)._replace(letter=HARD_TIMEOUT)

    def _failed(self, error: BaseException) -> Ended:
        cause = get_pickleable_exception(error)
        if cause.__traceback__ is None:
            cause.__traceback__ = error.__traceback__
        etype = get_pickleable_etype(type(error))
        einfo = ExceptionInfo(exc_info=(etype, cause, cause.__traceback__))
        letter = "failed" if self._task.dead_letter else ""
        if isinstance(error, SchemaMigrationError):
            letter = MIGRATION
        return Ended(states.FAILURE, cause, einfo, letter)

    def _settle(self, run: Run, ended: Ended) -> Any:
        """Commit, let the consequences follow, and answer Celery."""
        try:
            operation, saved = self._commit_operation(run, ended)
        except Exception as error:  # noqa: BLE001 - a result that cannot be encoded fails its task
            ended = self._failed(error)
            operation, saved = self._commit_operation(run, ended)
        committed = self._persist(operation, run) or (
            self._starts_again(run) and self._persist(operation, run)
        )
        if committed and saved is not None:
            self._send_and_ack(run, ended, saved, again=False)
        if not committed:
            return self._lost(run)
        if run.started.done and ended.state == states.SUCCESS:
            logger.info(
                "%s[%s] did not run: it has the result of an earlier call with the same key",
                run.identity.name,
                run.identity.task_id,
            )
            return telling.answer(run, ended)
        telling.tell(run, ended)
        return telling.answer(run, ended)

    def _starts_again(self, run: Run) -> bool:
        """Return whether the claim is still ours and the server knows again that it started.

        One that lost its last writes may have forgotten it. Where the claim is another's, or has
        ended, ``start`` says so.
        """
        return self._persist(self._start_operation(run), run).verdict == "run"

    def _commit_operation(self, run: Run, ended: Ended) -> tuple[Operation[bool], Outcome | None]:
        """Return what commits this end, and the outcome from which more follows, if any."""
        task, request, keys = run.task, run.request, self._broker.keys
        stores = self._stores(run, ended)
        kept = self._kept(run, ended)
        if self._nothing_follows(run, ended, stores):
            result = None
            if stores:
                result = fusion.stored_result(
                    task.backend, request, ended.state, ended.value, ended.traceback or None
                )
            return running.finish(keys, run.claim, request.id, ended.label, result, kept), None
        saved = replay.saved(task, run.outbox, request.id, ended, replaced=run.replaced)
        outcome = replay.encode(saved)
        return running.commit(keys, run.claim, request.id, ended.label, outcome, kept), saved

    def _kept(self, run: Run, ended: Ended) -> Kept | None:
        """Return what later calls with the same idempotency key are to get."""
        if not run.key or run.started.done or ended.state != states.SUCCESS:
            return None
        ttl_s = run.task.idempotency_ttl or self._broker.settings.idempotency_default_ttl_s
        return Kept(replay.encode_value(run.task.app, ended.value), int(ttl_s * 1000))

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
        going_on = run.replaced or bool(run.outbox.messages or ended.letter)
        if going_on or ended.state in (states.RETRY, states.REJECTED):
            return False
        if stores and not self._fused:
            return False
        if ended.state == states.SUCCESS:
            return not (request.callbacks or request.chain or request.chord)
        if ended.state == states.FAILURE:
            return not (request.errbacks or request.chain or request.chord)
        return ended.state != states.REVOKED or not request.chord

    def _send_and_ack(self, run: Run, ended: Ended, saved: Outcome, *, again: bool) -> bool:
        """Send what follows, then end the claim; False when that is left to another process.

        Trouble that passes is waited out here, for the claim is ours and all of it may be sent
        twice; what does not pass is handed to another process. The commit stands either way.
        """
        for pause_s in (*_PAUSES_S, None):
            try:
                self._send(run, ended, saved, again=again)
            except Exception as error:  # noqa: BLE001 - whatever a backend or a publish raises
                self._say_not_sent(run, error)
                if pause_s is None or not may_pass(error):
                    self._abandon(run, error)
                    return False
                again = True
                time.sleep(pause_s)
            else:
                break
        self._persist(replay.ack(self._broker.keys, run.claim, run.identity, saved), run)
        return True

    def _say_not_sent(self, run: Run, error: Exception) -> None:
        logger.error(
            "%s[%s] is committed, but what follows from it could not be sent yet (%r); "
            "it will be sent again",
            run.identity.name,
            run.identity.task_id,
            error,
            exc_info=not may_pass(error),
        )

    def _abandon(self, run: Run, error: Exception) -> None:
        # Not at once: the next process would run into the same.
        time.sleep(min(2**run.grip.replays, _LONGEST_PAUSE_S))
        reason = printable(f"{type(error).__name__}: {error}")
        keys, task_id = self._broker.keys, run.identity.task_id
        self._persist(running.abandon(keys, run.claim, task_id, reason), run)

    def _send(self, run: Run, ended: Ended, saved: Outcome, *, again: bool) -> None:
        task, request, stores = run.task, run.request, self._stores(run, ended)
        if again:
            request.children[:] = replay.children(task, saved)
        consequences.send_held_back(self._broker, replay.held_back(saved))
        if ended.state == states.SUCCESS:
            consequences.send_success(task, request, ended.value, run.parent, store_result=stores)
        elif ended.state == states.RETRY:
            if stores:
                error = getattr(ended.value, "exc", None)
                task.backend.mark_as_retry(request.id, error, ended.traceback, request=request)
        elif ended.state == states.REVOKED:
            reason = str(ended.value or "terminated")
            consequences.send_revoked(task, request, reason, run.parent, store_result=stores)
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
            return telling.ignored()
        try:
            saved = replay.decode(run.grip.outcome or b"")
            ended = replay.read(run.task, run.grip.outcome or b"")
        except Exception as error:  # noqa: BLE001 - of a newer relier, or of code that is not here
            self._say_not_sent(run, error)
            self._abandon(run, error)
            return telling.ignored()
        if not self._send_and_ack(run, ended, saved, again=True):
            return telling.ignored()
        logger.info(
            "%s[%s] had ended as %s when its process died; sent what follows from it",
            run.identity.name,
            run.identity.task_id,
            saved.state,
        )
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
        self._persist(reaping.reap_claim(self._broker.keys, run.claim, reason, rules), run)
        return telling.ignored()

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
