"""The tasks that the integration tests run, on an app that is made to measure."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from typing import Any

from celery import Celery, chain, chord, group, signals
from celery.exceptions import Ignore, Reject

from relier import Relier, TaskContext, idempotency_lock, rl_task, task_context
from relier.tasks.task import RelierTask
from support.journal import Journal

WAIT_S = 20.0


class UnpicklableError(Exception):
    """An exception that holds what no process can send to another."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.lock = threading.Lock()

    def __reduce__(self) -> Any:
        raise TypeError("cannot be pickled")


def note(*words: object) -> None:
    """Write into the journal of the test, if there is one."""
    if "RELIER_TEST_JOURNAL" in os.environ:
        Journal.from_env().write(*words)


def make_app(broker: str, backend: str | None, *, protect_all: bool = False) -> Celery:
    """Make the app with all its tasks."""
    app = Celery("kitchen", broker=broker, backend=backend, set_as_current=False)
    app.conf.task_create_missing_queues = True
    Relier(app, protect_all=protect_all, env="development")
    _simple(app)
    _ends(app)
    _generations(app)
    _plain(app)
    _locks(app)
    app.finalize()
    return app


def _simple(app: Celery) -> None:
    @rl_task(app=app, shared=False, name="add")
    def add(x: int, y: int) -> int:
        return x + y

    @rl_task(app=app, shared=False, name="aadd")
    async def aadd(x: int, y: int) -> int:
        await asyncio.sleep(0)
        return x + y

    @rl_task(app=app, shared=False, name="about")
    def about(x: int, *, ctx: TaskContext, more: str = "") -> dict[str, object]:
        same = task_context()
        assert same is ctx
        return {
            "id": ctx.task_id,
            "name": ctx.task_name,
            "args": list(ctx.args),
            "kwargs": dict(ctx.kwargs),
            "attempt": ctx.attempt,
            "fence": ctx.fence,
            "worker": ctx.worker_id,
        }

    @rl_task(app=app, shared=False, name="bound", bind=True)
    def bound(self: RelierTask, x: int) -> list[object]:
        return [self.request.id, self.request.retries, x]

    @rl_task(app=app, shared=False, name="due", bind=True)
    def due(self: RelierTask) -> object:
        return self.request.eta

    @rl_task(app=app, shared=False, name="total")
    def total(values: list[int]) -> int:
        return sum(values)

    @rl_task(app=app, shared=False, name="order")
    def order(way: str) -> str:
        """Dispatch another task from the body."""
        add = app.tasks["add"]
        return str((add.push(1, 2) if way == "push" else add.delay(1, 2)).id)

    @rl_task(app=app, shared=False, name="write")
    def write(*words: object) -> None:
        note("write", *words)

    @rl_task(app=app, shared=False, name="hold")
    def hold(path: str) -> str:
        """Run until a file exists."""
        note("hold", path)
        deadline = time.monotonic() + WAIT_S
        while not os.path.exists(path):
            if time.monotonic() > deadline:
                raise TimeoutError(path)
            time.sleep(0.01)
        return path

    @rl_task(app=app, shared=False, name="tracked", track_started=True)
    def tracked(path: str) -> str:
        return str(hold.run(path))


def _ends(app: Celery) -> None:
    @rl_task(app=app, shared=False, name="end")
    def end(how: str) -> object:
        """End in one of the ways in which tasks end."""
        note("end", how)
        if how == "error":
            raise ValueError("as told")
        if how == "memory":
            raise MemoryError("as told")
        if how == "exit":
            raise SystemExit("as told")
        if how == "unpicklable":
            raise UnpicklableError("as told")
        if how == "ignore":
            raise Ignore
        if how == "reject":
            raise Reject("as told", requeue=False)
        if how == "lock":
            return threading.Lock()
        return how

    @rl_task(app=app, shared=False, name="end_unmourned", dead_letter=False)
    def end_unmourned(how: str = "error") -> None:
        raise Reject("as told", requeue=False) if how == "reject" else ValueError("as told")

    @rl_task(app=app, shared=False, name="reject_twice", bind=True)
    def reject_twice(self: RelierTask, key: str) -> str:
        """Reject with requeue until it was run three times, then retry once."""
        note("reject", key)
        runs = Journal.from_env().count("reject", key)
        assert bool(self.request.delivery_info["redelivered"]) is (runs in (2, 3))
        if runs < 3:
            raise Reject("again", requeue=True)
        if runs == 3:
            raise self.retry(countdown=0)
        return "done"

    @rl_task(app=app, shared=False, name="on_error")
    def on_error(task_id: str) -> None:
        """An errback that is sent as a message."""
        note("on_error", task_id)

    @rl_task(app=app, shared=False, name="on_error_inline")
    def on_error_inline(request: Any, error: BaseException, traceback: str) -> None:
        """An errback that is called where the task failed."""
        note("on_error_inline", request.id, type(error).__name__)


def _generations(app: Celery) -> None:
    @rl_task(app=app, shared=False, name="retry", bind=True, max_retries=3)
    def retry(self: RelierTask, times: int, *, throw: bool = True) -> int:
        note("retry", self.request.id, self.request.retries)
        if self.request.retries < times:
            self.retry(countdown=0.05, throw=throw)
            return -1
        return int(self.request.retries)

    @rl_task(
        app=app,
        shared=False,
        name="autoretry",
        autoretry_for=(KeyError,),
        retry_kwargs={"max_retries": 2, "countdown": 0},
    )
    def autoretry(key: str) -> None:
        note("autoretry", key)
        raise KeyError(key)

    @rl_task(app=app, shared=False, name="replace", bind=True)
    def replace(self: RelierTask, by: str) -> None:
        note("replace", self.request.id, by)
        add, total = self.app.tasks["add"], self.app.tasks["total"]
        self.replace(
            {
                "task": lambda: add.s(1, 2),
                "chain": lambda: chain(add.s(1, 2), add.s(3)),
                "group": lambda: group(add.s(1, 2), add.s(3, 4)),
                "chord": lambda: chord([add.s(1, 2), add.s(3, 4)], total.s()),
            }[by]()
        )


def _plain(app: Celery) -> None:
    @app.task(shared=False, name="plain", bind=True)
    def plain(self: Any, x: int) -> list[object]:
        note("plain", x)
        return [x, self.request.delivery_info.get("redelivered")]

    @app.task(shared=False, name="plain_late", acks_late=True)
    def plain_late(x: int) -> int:
        return x

    @app.task(shared=False, name="die", bind=True)
    def die(self: Any, key: str) -> str:
        """Kill its own process the first time."""
        note("die", key)
        if Journal.from_env().count("die", key) == 1:
            os.kill(os.getpid(), 9)
        assert self.request.delivery_info["redelivered"]
        return key


def _locks(app: Celery) -> None:
    @rl_task(app=app, shared=False, name="locked")
    def locked(word: str) -> str:
        with idempotency_lock(word) as lock:
            if not lock.already_executed:
                note("locked", word)
                lock.set_result(f"{word} {Journal.from_env().count('locked', word)}")
            return lock.cached_result or f"{word} 1"

    @rl_task(app=app, shared=False, name="alocked")
    async def alocked(word: str) -> str:
        async with idempotency_lock(word) as lock:
            if not lock.already_executed:
                note("locked", word)
                await asyncio.sleep(0)
                lock.set_result(f"{word} {Journal.from_env().count('locked', word)}")
            return lock.cached_result or f"{word} 1"

    @rl_task(app=app, shared=False, name="locked_twice")
    def locked_twice(word: str) -> None:
        with idempotency_lock(word), idempotency_lock(word):
            note("locked", word)

    @rl_task(app=app, shared=False, name="locked_and_killed")
    def locked_and_killed(word: str) -> str:
        with idempotency_lock(word) as lock:
            note("locked", word)
            times = Journal.from_env().count("locked", word)
            if times == 1:
                os.kill(os.getpid(), 9)
            lock.set_result(times)
        return f"{word} {times}"


@signals.task_prerun.connect
def _prerun(task_id: str, **_: Any) -> None:
    note("signal", "prerun", task_id)


@signals.task_postrun.connect
def _postrun(task_id: str, state: str, **_: Any) -> None:
    note("signal", "postrun", task_id, state)


@signals.task_success.connect
def _success(sender: Any, **_: Any) -> None:
    note("signal", "success", sender.request.id)


@signals.task_failure.connect
def _failure(task_id: str, **_: Any) -> None:
    note("signal", "failure", task_id)


@signals.task_retry.connect
def _retry(request: Any, **_: Any) -> None:
    note("signal", "retry", request.id)
