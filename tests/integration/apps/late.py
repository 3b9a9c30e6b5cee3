"""Tasks that run longer than they may."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from collections.abc import Callable
from typing import Any

from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded

from faults.apps import labour
from faults.apps.labour import BROKER, gate
from relier import TaskContext, rl_task, task_context
from relier.tasks.task import RelierTask
from support.journal import Journal

SOFT_S, HARD_S = 1.0, 2.0
BRIEF_S = 0.3
"""A timeout of tasks of which it does not matter when exactly."""
LONG_S = 30.0
PROTECT_ALL = "RELIER_TEST_PROTECT_ALL"


def write(*words: object) -> None:
    Journal.from_env().write(*words)


def _begin(word: str) -> None:
    write("began", word, task_context().attempt)


# -- hooks


async def ahook(ctx: TaskContext) -> None:
    assert task_context() is ctx
    write("hook", ctx.args[0], f"{(ctx.deadline or 0) - ctx.started_at:.1f}")
    await asyncio.sleep(0.1)
    write("hook ended", ctx.args[0])


def hook(ctx: TaskContext) -> None:
    assert task_context() is ctx
    write("hook", ctx.args[0], f"{(ctx.deadline or 0) - ctx.started_at:.1f}")
    time.sleep(0.1)
    write("hook ended", ctx.args[0])


def raising(ctx: TaskContext) -> None:
    write("hook", ctx.args[0])
    raise SystemExit("as told by the hook")


async def hanging(ctx: TaskContext) -> None:
    write("hook", ctx.args[0])
    while True:
        try:
            await asyncio.sleep(LONG_S)
        except asyncio.CancelledError:
            write("hook cancelled", ctx.args[0])
            raise


def killing(ctx: TaskContext) -> None:
    write("hook", ctx.args[0])
    if ctx.attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)


def saving(ctx: TaskContext) -> None:
    ctx.save_partial({"of": ctx.args[0]})


async def asaving(ctx: TaskContext) -> None:
    await ctx.set_partial({"of": ctx.args[0]})


# -- bodies


def keeping(word: str) -> object:
    """Run for too long, unless an earlier life had saved something."""
    _begin(word)
    found = task_context().partial_result
    if found is None:
        time.sleep(4 * BRIEF_S)
    return found


async def akeeping(word: str) -> object:
    """Do it as a coroutine."""
    _begin(word)
    found = task_context().partial_result
    if found is None:
        await asyncio.sleep(LONG_S)
    return found


async def coroutine(word: str) -> None:
    """Wait for long, and turn a cancellation into an error that would be retried."""
    _begin(word)
    try:
        while True:
            write("alive", word)
            await asyncio.sleep(0.01)
    except asyncio.CancelledError:
        raise KeyError(word) from None


async def returning(word: str) -> str:
    """Make a result of a cancellation, which is too late for one."""
    _begin(word)
    try:
        await asyncio.sleep(LONG_S)
    except asyncio.CancelledError:
        return word
    return word


async def stubborn(word: str) -> None:
    """Wait for long, and swallow cancellations."""
    _begin(word)
    while True:
        try:
            write("alive", word)
            await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            write("swallowed", word)


def function(word: str) -> None:
    _begin(word)
    while True:
        write("alive", word)
        time.sleep(0.01)


def stuck(word: str) -> None:
    """Never let go of the interpreter's lock."""
    _begin(word)
    re.match(r"(a+)+$", "a" * 60 + "b")


def hold(word: str) -> str:
    """Run until the test opens the gate."""
    _begin(word)
    deadline = time.monotonic() + LONG_S
    while not gate(word).exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    write("passed", word)
    return word


async def ahold(word: str) -> str:
    """Do it as a coroutine."""
    _begin(word)
    deadline = time.monotonic() + LONG_S
    while not gate(word).exists() and time.monotonic() < deadline:
        await asyncio.sleep(0.01)
    write("passed", word)
    return word


def saved(word: str) -> str:
    """Return what there is when interrupted."""
    _begin(word)
    try:
        time.sleep(LONG_S)
    except SoftTimeLimitExceeded:
        return f"saved {word}"
    return word


async def asaved(word: str) -> str:
    """Do it as a coroutine."""
    _begin(word)
    try:
        await asyncio.sleep(LONG_S)
    except SoftTimeLimitExceeded:
        return f"saved {word}"
    return word


def interrupted(word: str) -> None:
    _begin(word)
    time.sleep(LONG_S)


def again(self: RelierTask, word: str) -> str:
    """Be late once, and retry."""
    _begin(word)
    if self.request.retries == 0:
        deadline = time.monotonic() + LONG_S
        while not Journal.from_env().count("hook", word) and time.monotonic() < deadline:
            time.sleep(0.01)
        raise self.retry(countdown=0)
    return word


def close(word: str, duration_s: float) -> str:
    """Sleep for about as long as is allowed."""
    _begin(word)
    time.sleep(duration_s)
    write("passed", word)
    return word


async def aclose(word: str, duration_s: float) -> str:
    """Do it as a coroutine."""
    _begin(word)
    await asyncio.sleep(duration_s)
    write("passed", word)
    return word


def plain(word: str) -> None:
    """Run for long under a plain Celery task."""
    write("began", word)
    time.sleep(LONG_S)


_BARS: dict[str, Any] = {"soft_timeout": SOFT_S, "hard_timeout": HARD_S}
_SOFT: dict[str, Any] = {"soft_timeout": BRIEF_S}
_HARD: dict[str, Any] = {"hard_timeout": BRIEF_S}
_KEPT: dict[str, Any] = {"soft_timeout": BRIEF_S, "hard_timeout": 2 * BRIEF_S}
_RETRIED: dict[str, Any] = {"autoretry_for": (Exception,), "max_retries": 3}
TASKS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "coroutine": (coroutine, {**_BARS, **_RETRIED, "on_soft_timeout": ahook}),
    "coroutine, sync hook": (coroutine, {**_BARS, "on_soft_timeout": hook}),
    "stubborn": (stubborn, {**_BARS, "on_soft_timeout": ahook}),
    "function": (function, {**_BARS, **_RETRIED, "on_soft_timeout": hook}),
    "function, async hook": (function, {**_BARS, "on_soft_timeout": ahook}),
    "stubborn, briefly": (stubborn, _HARD),
    "stuck": (stuck, _HARD),
    "told": (hold, _SOFT),
    "raising hook": (hold, {**_SOFT, "on_soft_timeout": raising}),
    "raising hook, coroutine": (ahold, {**_SOFT, "on_soft_timeout": raising}),
    "hanging hook": (hold, {**_SOFT, "on_soft_timeout": hanging}),
    "hanging hook, coroutine": (ahold, {**_SOFT, "on_soft_timeout": hanging}),
    "hanging hook, too long": (
        coroutine,
        {"soft_timeout": BRIEF_S / 2, "hard_timeout": BRIEF_S, "on_soft_timeout": hanging},
    ),
    "killing hook": (hold, {**_SOFT, "on_soft_timeout": killing}),
    "over": (hold, {**_SOFT, "hard_timeout": LONG_S, "on_soft_timeout": hook}),
    "saved": (saved, {**_SOFT, "raise_on_soft": True, "on_soft_timeout": hook}),
    "asaved": (asaved, {**_SOFT, "raise_on_soft": True, "on_soft_timeout": ahook}),
    "interrupted": (interrupted, {**_SOFT, "raise_on_soft": True}),
    "again": (again, {**_SOFT, "on_soft_timeout": hook, "bind": True, "max_retries": 3}),
    "brief": (function, _HARD),
    "abrief": (coroutine, _HARD),
    "keeping": (keeping, {**_KEPT, "on_soft_timeout": saving}),
    "keeping, async hook": (keeping, {**_KEPT, "on_soft_timeout": asaving}),
    "akeeping": (akeeping, {**_KEPT, "on_soft_timeout": asaving}),
    "returning": (returning, _HARD),
    "close": (close, _HARD),
    "aclose": (aclose, _HARD),
    "outlasting": (hold, _HARD),
    "equal": (function, {**_HARD, "idempotent": True}),
    "equal, coroutine": (coroutine, {**_HARD, "idempotent": True}),
    "draining": (function, {"hard_timeout": HARD_S}),
}


def build(broker: str, **settings: object) -> Celery:
    """Make an app with these tasks and those of `labour`."""
    app = labour.build(broker, env="development", **settings)
    for name, (body, options) in TASKS.items():
        rl_task(app=app, name=name, shared=False, **options)(body)
    app.task(name="plain", shared=False)(plain)
    return app


if BROKER in os.environ:
    app = build(os.environ[BROKER], protect_all=PROTECT_ALL in os.environ)
