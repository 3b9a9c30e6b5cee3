"""Tasks that save how far they have come, and die on the way."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import threading
import time
from contextvars import copy_context
from pathlib import Path
from typing import Any

from celery import Celery

from relier import Relier, TaskContext, rl_task, task_context
from relier.errors import RelierError
from relier.tasks.task import RelierTask
from relier.worker import checkpoints
from support.journal import VARIABLE, Journal

BROKER = "RELIER_TEST_BROKER"
GATE_DEADLINE_S = 60.0


def gate(word: str) -> Path:
    """Return the file whose existence lets `wait(word)` go on."""
    return Path(os.environ[VARIABLE]).with_name(f"gate-{word}")


def wait(word: str) -> None:
    """Wait until the test opens the gate."""
    deadline = time.monotonic() + GATE_DEADLINE_S
    while not gate(word).exists() and time.monotonic() < deadline:
        time.sleep(0.01)


def die() -> None:
    """Kill this very process."""
    os.kill(os.getpid(), signal.SIGKILL)


def padded(step: int, size: int) -> dict[str, Any]:
    """Return a state of about this size."""
    return {"step": step, "padding": "x" * size}


def climb(steps: int, size: int = 0, *, ctx: TaskContext) -> list[int]:
    """Take one step in each attempt, save, and die; return the steps that were seen as done."""
    found = ctx.partial_result
    done = found["step"] if found else 0
    Journal.from_env().write("climb", ctx.task_id, ctx.attempt, done)
    if done < steps:
        ctx.save_partial(padded(done + 1, size))
        die()
    return [done, ctx.attempt]


async def aclimb(steps: int, size: int = 0) -> list[int]:
    """The same, and the state is saved by what is called below the task."""
    ctx = task_context()
    found = ctx.partial_result
    done = found["step"] if found else 0

    async def below() -> None:
        await task_context().set_partial(padded(done + 1, size))

    if done < steps:
        await asyncio.gather(below(), asyncio.to_thread(lambda: task_context().task_id))
        die()
    return [done, ctx.attempt]


def in_threads(count: int) -> Any:
    """Save from threads of the task's own, the last one last, and die."""
    ctx = task_context()
    if ctx.partial_result is not None:
        return ctx.partial_result
    for number in range(count):
        thread = threading.Thread(
            target=copy_context().run, args=(lambda n: task_context().save_partial([n]), number)
        )
        thread.start()
        thread.join()
    die()
    return None


def retried(self: RelierTask, size: int = 0) -> Any:
    """Save, then retry."""
    ctx = task_context()
    found = ctx.partial_result
    Journal.from_env().write("retried", ctx.task_id, self.request.retries, found is not None)
    if found is None:
        ctx.save_partial(padded(1, size))
        self.retry(countdown=0.05)
    return [found["step"], dict(ctx.metadata)]


def replaced(self: RelierTask) -> Any:
    """Save, then be replaced by another task under the same id."""
    task_context().save_partial("of another task")
    return self.replace(self.app.tasks["see"].s())


def see() -> Any:
    """Return what is there."""
    return task_context().partial_result


def condemned(word: str, size: int = 0) -> Any:
    """Save and die, until the test opens the gate."""
    ctx = task_context()
    if gate(word).exists():
        return [ctx.partial_result and ctx.partial_result["step"], ctx.attempt]
    ctx.save_partial(padded(ctx.attempt, size))
    die()
    return None


def slow(word: str) -> None:
    """Save, and run past the hard timeout."""
    task_context().save_partial(["slow", word])
    time.sleep(GATE_DEADLINE_S)


def says(what: str, limit: int = 0) -> str:
    """Save what cannot be saved; return the error."""
    ctx = task_context()
    states: dict[str, Any] = {
        "lock": threading.Lock(),
        "large": "x" * 200_000,
        "fine": {"fine": True},
    }
    try:
        if limit:
            ctx.save_partial({"before": True})
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        ctx.save_partial(states[what])
    except RelierError as error:
        return f"{type(error).__name__}: {error}"
    finally:
        if limit:
            unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
            resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    return "saved"


def torn(size: int) -> Any:
    """Save a large state; die in the middle of writing the next."""
    ctx = task_context()
    if ctx.attempt > 1:
        return ctx.partial_result["step"]
    ctx.save_partial(padded(1, size))
    os.fsync = lambda _fd: die()  # the bytes are there, the name is not
    ctx.save_partial(padded(2, size))
    return None


def unfinished(size: int) -> Any:
    """Save a large state; die between writing the file of the next and referring to it."""
    ctx = task_context()
    if ctx.attempt > 1:
        return ctx.partial_result["step"]
    ctx.save_partial(padded(1, size))
    checkpoints.store.checkpoint = lambda *_: die()
    ctx.save_partial(padded(2, size))
    return None


def held(word: str, size: int = 0) -> str:
    """Save, and wait for the test."""
    ctx = task_context()
    if ctx.attempt == 1:
        ctx.save_partial(padded(1, size))
    Journal.from_env().write("held", word, ctx.attempt, (ctx.partial_result or {}).get("step", 0))
    wait(word)
    return word


def late(word: str) -> str:
    """Save when the test lets it."""
    Journal.from_env().write("late", word)
    wait(word)
    task_context().save_partial(word)
    return "saved"


async def save_late(ctx: TaskContext) -> None:
    """Be the hook of a soft timeout."""
    await ctx.set_partial(["saved at the soft timeout", ctx.attempt])


def tardy() -> Any:
    """Run past both timeouts, the first time."""
    found = task_context().partial_result
    if found is None:
        time.sleep(GATE_DEADLINE_S)
    return found


async def atardy() -> Any:
    """The same."""
    found = task_context().partial_result
    if found is None:
        await asyncio.sleep(GATE_DEADLINE_S)
    return found


def build(broker: str, **settings: object) -> Celery:
    """Make an app with these tasks; the producer and the workers make the same one."""
    app = Celery("climbers", broker=broker, backend=broker, set_as_current=False)
    Relier(app, **{"env": "development", **settings})
    for function in (climb, aclimb, in_threads, see, says, torn, unfinished, held, late):
        rl_task(app=app, name=function.__name__, shared=False)(function)
    for function in (retried, replaced):
        rl_task(app=app, name=function.__name__, shared=False, bind=True)(function)
    rl_task(app=app, name="condemned", shared=False, max_resurrections=0)(condemned)
    for function in (tardy, atardy):
        rl_task(
            app=app,
            name=function.__name__,
            shared=False,
            soft_timeout=0.3,
            hard_timeout=1.5,
            on_soft_timeout=save_late,
        )(function)
    rl_task(app=app, name="slow", shared=False, time_limit=1)(slow)
    return app


if BROKER in os.environ:
    app = build(os.environ[BROKER])
