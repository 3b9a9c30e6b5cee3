"""Begin a task: ``start``, and the idempotency key of its call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery.exceptions import WorkerShutdown, WorkerTerminate

from relier.store import running
from relier.store.broker import Broker
from relier.worker import expiry
from relier.worker.body import Body
from relier.worker.idempotency import call_key
from relier.worker.run import Run, persist

Call = Callable[[Run, Callable[[Run], str]], str]


def _call(run: Run, function: Callable[[Run], str]) -> str:
    return function(run)


class Beginning:
    """How the runs of one task begin.

    Args:
        task: the task.
        broker: where its claims are.
        body: knows how its arguments are migrated.
    """

    def __init__(self, task: Any, broker: Broker, body: Body) -> None:
        self._broker = broker
        self._body = body
        self._call_key = call_key(task)

    def begin(self, run: Run) -> BaseException | None:
        """Start the task, under its call's key if it has one; ``run.started`` is the answer.

        User code that has a say in the key runs under a claim that has started: what kills its
        process there, or hangs, is bounded like a body that does. Such a task starts without its
        key, and asks for it by starting again.

        Returns:
            What stood in the way of the key, and fails the task.
        """
        if self._call_key is None:
            self._start(run)
            return None
        if self._call_key.chosen or self._body.is_of_another_version(run.request):
            self._start(run)
            if run.started.verdict != "run" or run.grip.revoked or run.started.revoked:
                return None
            keyless = self._find_key(run, self._body.within_limits)
            if keyless is None:
                self._start(run)
            return keyless
        keyless = self._find_key(run)
        self._start(run)
        return keyless

    def _find_key(self, run: Run, call: Call = _call) -> BaseException | None:
        try:
            run.key = call(run, self._key_of)
        except (WorkerShutdown, WorkerTerminate, KeyboardInterrupt):
            raise
        except BaseException as error:  # noqa: BLE001 - the task's own function may say the key
            return error
        return None

    def _key_of(self, run: Run) -> str:
        assert self._call_key is not None
        self._body.migrate(run.request)
        return self._call_key.of(run.request.args, run.request.kwargs)

    def _start(self, run: Run) -> None:
        run.beginning = running.start(
            self._broker.keys,
            run.claim,
            run.identity,
            own_limit=getattr(run.task, "max_resurrections", None),
            max_resurrections=self._broker.settings.max_resurrections,
            idempotency_key=run.key,
            expires=expiry.is_kept(run.request),
        )
        started = persist(self._broker, run.beginning, run)
        run.started = expiry.resolved(started, run.request)
