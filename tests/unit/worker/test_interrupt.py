from __future__ import annotations

import asyncio
import signal
import threading
import time

import pytest
from celery.exceptions import SoftTimeLimitExceeded

from relier.worker import interrupt
from relier.worker.interrupt import Interruptible


async def test_a_coroutine_is_interrupted_where_it_waits() -> None:
    seen: list[object] = []

    async def inner() -> None:
        try:
            await asyncio.sleep(60)
        except SoftTimeLimitExceeded as error:
            seen.append(error)
            raise

    async def body() -> str:
        try:
            await inner()
        except SoftTimeLimitExceeded:
            async with asyncio.timeout(10):
                await asyncio.sleep(0)
            return "went on"
        return "was not interrupted"

    coroutine = Interruptible(body())
    task = asyncio.get_running_loop().create_task(coroutine)
    await asyncio.sleep(0.01)
    coroutine.interrupt(task)
    assert await task == "went on"
    assert len(seen) == 1
    assert task.cancelling() == 0
    coroutine.interrupt(task)  # too late: nothing happens


async def test_it_can_still_be_cancelled() -> None:
    async def body() -> None:
        await asyncio.sleep(60)

    task = asyncio.get_running_loop().create_task(Interruptible(body()))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_the_main_thread_is_interrupted_if_it_wants_to_be() -> None:
    others: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: others.append(number))
    try:
        interrupt.prepare()
        threading.Timer(0.05, interrupt.raise_in_main_thread, [lambda: True]).start()
        with pytest.raises(SoftTimeLimitExceeded):
            time.sleep(60)
        interrupt.raise_in_main_thread(lambda: False)
        assert not others
        signal.raise_signal(signal.SIGUSR1)
        assert others, "a signal of somebody else's goes where it went before"
    finally:
        signal.signal(signal.SIGUSR1, before)
