"""The canvases whose lives are cut, and a mother process that forks workers for them.

Starting a worker takes more than a second, most of it imports. The mother imports once and forks a
worker per order, so that a test can afford one for each crash point.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import signal
import sys
import time
from typing import Any

import redis
from celery import Celery, chord

from relier import Relier, rl_task, task_context
from relier.tasks.context import TaskContext
from relier.tasks.task import RelierTask
from support.journal import Journal

COUNTED_DEADLINE_S = 10.0
LARGE = 100_000
"""Bytes of a checkpoint that has no room in Redis."""
IMPORTED_ONCE = (
    "celery.apps.worker",
    "celery.bin.worker",
    "celery.concurrency.prefork",
    "celery.concurrency.solo",
    "celery.concurrency.thread",
    "relier.worker.consumer",
    "relier.worker.request",
)


def make_app(broker: str, backend: str) -> Celery:
    """Make the app; in a worker only after the fork."""
    app = Celery("steps", broker=broker, backend=backend, set_as_current=False)
    app.conf.task_default_queue = "calm"
    app.conf.worker_enable_remote_control = True
    app.conf.result_chord_retry_interval = 0.1  # where Celery polls for a chord's parts
    Relier(app, env="development")

    @rl_task(app=app, shared=False, name="part")
    def part(number: int, after: str = "") -> int:
        """A chord part; may wait until another task has ended, to be counted last."""
        Journal.from_env().write("part", number)
        if after:
            _await_end(after)
        return number * 10

    @rl_task(app=app, shared=False, name="failing")
    def failing(after: str = "") -> None:
        Journal.from_env().write("failing")
        if after:
            _await_end(after)
        raise ValueError("as told")

    @rl_task(app=app, shared=False, name="stopped", soft_timeout=0.02, hard_timeout=0.04)
    async def stopped() -> None:
        """Run into the hard timeout, which is a commit of its own process."""
        Journal.from_env().write("stopped")
        await asyncio.sleep(COUNTED_DEADLINE_S)
        Journal.from_env().write("outlived")

    @rl_task(app=app, shared=False, name="total")
    def total(values: list[int]) -> int:
        Journal.from_env().write("total", sorted(values))
        return sum(values)

    @rl_task(app=app, shared=False, name="effect")
    def effect(value: Any, word: str) -> None:
        Journal.from_env().write("effect", word, value)

    @rl_task(app=app, shared=False, name="failed")
    def failed(task_id: str, word: str) -> None:
        Journal.from_env().write("failed", word)

    @rl_task(app=app, shared=False, name="again", bind=True, max_retries=2)
    def again(self: RelierTask) -> int:
        Journal.from_env().write("again", self.request.retries)
        if self.request.retries == 0:
            raise self.retry(countdown=0)
        return 1

    @rl_task(app=app, shared=False, name="swap", bind=True)
    def swap(self: RelierTask) -> None:
        Journal.from_env().write("swap")
        calm = {"queue": "calm"}
        header = [part.s(1).set(**calm), part.s(2).set(**calm)]
        self.replace(chord(header, total.s().set(**calm)))

    @rl_task(app=app, shared=False, name="climb")
    def climb() -> int:
        """Take three steps, saving after each, the second time into a file."""
        ctx = task_context()
        reached = ctx.partial_result["reached"] if ctx.partial_result else 0
        for step in range(reached, 3):
            Journal.from_env().write("step", step)
            load = "x" * (LARGE if step == 1 else 0)
            ctx.save_partial({"reached": step + 1, "load": load})
        return 3

    @rl_task(app=app, shared=False, name="linger", on_soft_timeout=_keep)
    def linger() -> int:
        """Run until the worker is drained; what the hook has saved then, or a death, is enough."""
        ctx = task_context()
        Journal.from_env().write("linger", ctx.attempt, ctx.partial_result)
        if ctx.attempt == 1:
            time.sleep(COUNTED_DEADLINE_S)
        return 1

    @rl_task(app=app, shared=False, name="in_time", on_soft_timeout=_keep)
    def in_time() -> int:
        """Run into the drain, and end before its grace does."""
        Journal.from_env().write("linger")
        time.sleep(0.7)
        return 1

    @rl_task(app=app, shared=False, name="mother")
    def mother() -> int:
        """Dispatch another task from its body."""
        Journal.from_env().write("mother")
        app.tasks["effect"].apply_async((1, "child"), queue="calm")
        return 1

    app.finalize()
    return app


def _keep(context: TaskContext) -> None:
    context.save_partial({"load": "x" * LARGE})


def _await_end(task_id: str) -> None:
    deadline = time.monotonic() + COUNTED_DEADLINE_S
    with redis.Redis.from_url(os.environ["DIRECT_URL"]) as direct:
        while direct.hget(f"rl:task:{task_id}", "s") != b"e":
            if time.monotonic() > deadline:
                raise AssertionError(f"{task_id} has not ended")
            time.sleep(0.005)


def mother() -> None:
    """Fork a worker for each line of orders; end, with all of them, when the orders end."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel buries them
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    pids: list[int] = []
    try:
        for line in sys.stdin:
            order = json.loads(line)
            pid = os.fork()
            if pid == 0:
                _be_a_worker(order)
            pids.append(pid)
            print(pid, flush=True)
    finally:
        for pid in pids:
            try:
                os.killpg(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # it has ended before


def _be_a_worker(order: dict[str, Any]) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.setsid()
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.environ.update(order["env"])
    try:
        make_app(order["broker"], order["backend"]).worker_main(order["argv"])
    finally:
        os._exit(0)


if __name__ == "__main__":
    for module in IMPORTED_ONCE:
        importlib.import_module(module)
    mother()
