from __future__ import annotations

import asyncio
import gc
import logging
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from relier import config
from relier.protocol.identity import Claim
from relier.protocol.timeouts import Limits, plan
from relier.store.address import Address
from relier.store.broker import Broker
from relier.worker.coroutines import complete
from relier.worker.timed import Timed
from relier.worker.timeouts import Timekeeper
from relier.worker.timing import Timing
from support.wait import wait_for

NOWHERE = "redis://127.0.0.1:1/0"


@pytest.fixture(autouse=True)
def _let_go_of_what_was_left() -> Iterator[None]:
    """Collect coroutines that lost their loop, while their test can still be blamed."""
    yield
    gc.collect()


def _timed(limits: Limits, hook: Any = None, *, raises: bool = False) -> Timed:
    moments = plan(limits, runs_coroutine=True)
    timing = Timing(limits, moments, hook, raises, True, "task")
    keeper = Timekeeper(Broker(Address.parse(NOWHERE), config.load({})))
    return keeper.timed(timing, Claim("worker", "queue", "1"), "id")


def _run(timed: Timed, coroutine: Any) -> Any:
    try:
        timed.begin()
        timed.enter("the context")
        return complete(coroutine, timed)
    finally:
        timed.end()


async def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


async def _nap() -> str:
    await asyncio.sleep(0.05)
    return "ended"


def test_tasks_of_a_thread_share_a_loop() -> None:
    loops = [complete(_loop(), None), _run(_timed(Limits(None, 5.0)), _loop())]
    assert loops[0] is loops[1]


def test_what_ends_in_time_is_left_alone() -> None:
    timed = _timed(Limits(0.5, 1.0))
    assert _run(timed, _nap()) == "ended"
    assert not timed.expired


def test_a_coroutine_that_will_not_end_loses_its_loop() -> None:
    swallowed: list[float] = []

    async def stubborn() -> None:
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                swallowed.append(time.monotonic())

    before = complete(_loop(), None)
    timed = _timed(Limits(None, 0.05))
    with pytest.raises(RuntimeError):
        _run(timed, stubborn())
    assert timed.expired
    assert swallowed
    assert complete(_loop(), None) is not before
    assert complete(_nap(), None) == "ended"


def test_a_hook_runs_in_the_bodys_loop() -> None:
    loops: list[object] = []

    async def hook(context: object) -> None:
        loops.append((asyncio.get_running_loop(), context))

    assert _run(_timed(Limits(0.01, None), hook), _nap()) == "ended"
    assert loops == [(complete(_loop(), None), "the context")]


def test_a_hook_that_will_not_end_loses_the_loop() -> None:
    async def hook(_: object) -> None:
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                continue

    before = complete(_loop(), None)
    assert _run(_timed(Limits(0.01, 0.2), hook), _nap()) == "ended"
    assert complete(_loop(), None) is not before


def test_what_is_left_in_a_lost_loop_ends_in_silence(caplog: pytest.LogCaptureFixture) -> None:
    destroyed: list[str] = []

    async def hook(_: object) -> None:
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                continue
            except GeneratorExit:
                destroyed.append("hook")
                raise

    # Records hold what they speak of.
    caplog.set_level(logging.ERROR, "relier.worker.timed")
    timed = _timed(Limits(), hook)
    drain = threading.Thread(target=wait_for, args=(timed.run_hook, 10))
    drain.start()
    assert _run(timed, _nap()) == "ended"
    drain.join()
    del timed, drain
    wait_for(lambda: gc.collect() >= 0 and destroyed, 10, "the loop to be destroyed")
    assert caplog.text == ""


def test_a_hook_can_be_run_by_others_and_again() -> None:
    called: list[object] = []
    timed = _timed(Limits(), called.append)

    async def body() -> None:
        while len(called) < 2:
            await asyncio.sleep(0.01)

    def drain() -> None:
        wait_for(timed.run_hook, 10)
        for _ in range(2):
            call = timed.run_hook()
            assert call is None or call.wait(10)

    other = threading.Thread(target=drain)
    other.start()
    _run(timed, body())
    other.join()
    assert called[:2] == ["the context", "the context"]
    assert timed.run_hook() is None, "the body has ended"
