"""Trouble while a task is stopped at its hard timeout: it has one end, whoever writes it down."""

from __future__ import annotations

import os
from typing import Any

import pytest

from faults.scene import Scene
from faults.test_connection_loss import calls
from integration.apps import late
from relier.errors import HardTimeoutError
from support.proxy import Proxy
from support.worker import Worker

APP: dict[str, Any] = {"app": "integration.apps.late", "options": ["--without-mingle"]}
STEPS = [("condemn", "brief"), ("commit", "abrief"), ("ack", "abrief")]
"""What writes the end down, of a function and of a coroutine."""


@pytest.fixture
def victim(scene: Scene, proxy: Proxy) -> Worker:
    """A worker behind the proxy."""
    scene.app = late.build(scene.url)
    env = {"RELIER_REDIS_SOCKET_TIMEOUT": "0.5"}
    return scene.worker("victim", **APP, broker=proxy.url, env=env, concurrency=1)


def _assert_stopped(scene: Scene, task_id: str, *, runs: int) -> None:
    scene.settle([task_id])
    assert isinstance(scene.app.AsyncResult(task_id).result, HardTimeoutError)
    assert {each: letter["reason"] for each, letter in scene.letters().items()} == {
        task_id: "hard_timeout"
    }
    assert scene.journal.count("began", task_id) == runs


def _push(scene: Scene, kind: str) -> str:
    task_id = f"id of {kind}"
    scene.app.tasks[kind].apply_async((task_id,), task_id=task_id)
    return task_id


@pytest.mark.parametrize(("script", "kind"), STEPS)
def test_a_lost_reply_changes_nothing(
    scene: Scene, proxy: Proxy, victim: Worker, script: str, kind: str
) -> None:
    cut = proxy.cut_after(1, calls(script))
    task_id = _push(scene, kind)
    cut.wait(30)
    _assert_stopped(scene, task_id, runs=1)
    assert scene.returns(task_id) == (0, 0)
    assert victim.running


@pytest.mark.parametrize(("script", "kind"), STEPS)
def test_the_worker_dies_once_the_end_is_written_down(
    scene: Scene, proxy: Proxy, victim: Worker, script: str, kind: str
) -> None:
    cut = proxy.cut_after(1, calls(script), victim.sigkill_tree)
    task_id = _push(scene, kind)
    cut.wait(30)
    scene.worker("other", **APP)
    _assert_stopped(scene, task_id, runs=1)


@pytest.mark.slow
@pytest.mark.parametrize(("script", "kind"), STEPS[:2])
def test_the_worker_dies_before_the_end_is_written_down(
    scene: Scene, proxy: Proxy, victim: Worker, script: str, kind: str
) -> None:
    """To Redis it was running: it comes back, and is stopped by the next."""
    cut = proxy.cut_before(1, calls(script), victim.sigkill_tree)
    task_id = _push(scene, kind)
    cut.wait(30)
    scene.worker("other", **APP)
    _assert_stopped(scene, task_id, runs=2)


@pytest.mark.slow
def test_an_orphan_ends_itself(scene: Scene, victim: Worker) -> None:
    """Its main process is dead; the task runs elsewhere already."""
    task_id = _push(scene, "draining")
    scene.wait_journal("began", task_id)
    (began,) = scene.journal.entries("began", task_id)
    victim.sigkill()
    scene.worker("other", **APP)
    scene.wait_journal("began", task_id, times=2)
    scene.wait(lambda: not os.path.exists(f"/proc/{began.pid}/exe"), "the orphan's end")
    _assert_stopped(scene, task_id, runs=2)


def test_the_process_is_stopped_though_redis_is_silent(
    scene: Scene, proxy: Proxy, victim: Worker
) -> None:
    task_id = _push(scene, "brief")
    scene.wait_journal("began", task_id)
    proxy.partition()
    (began,) = scene.journal.entries("began", task_id)
    scene.wait(lambda: not os.path.exists(f"/proc/{began.pid}/exe"), "its process to be stopped")
    scene.wait(lambda: "will condemn later" in victim.log(), "the worker to owe it")
    proxy.heal()
    _assert_stopped(scene, task_id, runs=1)
    assert scene.returns(task_id) == (0, 0)
    assert victim.running
