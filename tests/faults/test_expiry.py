"""`expires` is kept by the server's clock: nobody's wrong one makes a task late, or runs it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

import pytest

from faults.scene import Scene
from support.clock import wrong_clock
from support.wait import wait_for
from support.worker import TESTS

HOUR_S = 3600
SIGNED = {"RELIER_SECRET_KEY": "a key of the clocks' own", "RELIER_REQUIRE_SIGNATURE": "true"}


def dispatch(scene: Scene, shift_s: int, *calls: Any) -> list[str]:
    """Dispatch from a process whose clock is wrong; return the ids."""
    shifted = wrong_clock(scene.folder, shift_s)
    env = {"PYTHONPATH": ":".join([str(TESTS), *sys.path]), **SIGNED, **shifted}
    command = [sys.executable, "-m", "faults.apps.producer", scene.url]
    said = subprocess.check_output(command, input=json.dumps(calls), env=env, text=True)
    its_time_s, *ids = json.loads(said)
    assert abs(its_time_s - time.time() - shift_s) < HOUR_S / 2, "its clock is wrong"
    scene.accepted += ids
    return ids


def started_where_it_is(scene: Scene, shift_s: int) -> None:
    """Start a worker whose clock is wrong."""
    env = {**SIGNED, **wrong_clock(scene.folder, shift_s)}
    scene.worker("only", env=env, options=("--without-mingle",))


def kinds(scene: Scene, task_id: str) -> list[str]:
    """Return what the server wrote down of a task's end."""
    entries = scene.redis.xrange(scene.keys.events(scene.queue))
    return [each["r"] for _, each in entries if each["i"] == task_id and each["k"] == "ended"]


def test_what_has_time_left_runs_though_a_workers_clock_is_fast(scene: Scene) -> None:
    *ids, forgotten = dispatch(
        scene,
        -HOUR_S,
        ("note", "relative", {"expires": 60}),
        ("note", "absolute", {"expires_at": 60}),
        ("dated", "pushed", {}),
        ("insist", "retried", {"expires": 60}),
        ("note", "forgotten", {"expires": 60}),
    )
    # Where nothing but the message itself is left, its own time counts, as Celery has it.
    scene.redis.delete(scene.keys.task(forgotten))
    started_where_it_is(scene, HOUR_S)
    scene.settle(ids)
    for word in ("relative", "absolute", "pushed"):
        assert scene.journal.count("ran", word) == 1
    assert [entry.fields[2] for entry in scene.journal.entries("ran", "retried")] == ["0", "1"]
    assert {scene.state(each) for each in ids} == {"SUCCESS"}
    scene.wait(lambda: scene.state(forgotten) == "REVOKED", "the forgotten one")
    assert scene.journal.count("ran", "forgotten") == 0


def test_what_is_late_ends_as_expired_though_a_workers_clock_is_slow(scene: Scene) -> None:
    late, pushed, timely = dispatch(
        scene,
        HOUR_S,
        ("note", "late", {"expires": 0.2}),
        ("dated", "pushed", {"expires_at": 0.2}),
        ("note", "timely", {"expires": 60}),
    )
    raw = json.loads(scene.redis.lindex(scene.queue, -1))
    assert raw["headers"]["expires"] > "20", "stock workers read Celery's own header"
    wait_for(lambda: _is_over(scene, late) and _is_over(scene, pushed), 10)
    started_where_it_is(scene, -HOUR_S)
    scene.settle()
    for task_id in (late, pushed):
        assert scene.state(task_id) == "REVOKED"
        assert kinds(scene, task_id) == ["EXPIRED"]
    assert scene.state(timely) == "SUCCESS"
    [member] = scene.members()
    assert scene.redis.hget(scene.keys.worker(member), "expired") == "2"
    assert [entry.fields[1] for entry in scene.journal.entries("ran")] == ["timely"]


def _is_over(scene: Scene, task_id: str) -> bool:
    seconds, us = scene.redis.time()
    return int(scene.record(task_id)["ex"]) < seconds * 1000 + us // 1000


@pytest.mark.parametrize("again", [True, False])
def test_a_later_dispatch_says_anew_when_it_expires(scene: Scene, again: bool) -> None:
    note, options = scene.app.tasks["note"], {"expires": 0.1} if again else {}
    first = note.apply_async(("first",), task_id="twice")
    scene.accepted.append(first.id)
    worker = scene.worker("only", options=("--without-mingle",))
    scene.settle()
    worker.stop()
    note.apply_async(("second",), task_id="twice", **options)
    if again:
        wait_for(lambda: _is_over(scene, "twice"), 10)
    scene.worker("next", options=("--without-mingle",))
    scene.wait(lambda: len(kinds(scene, "twice")) == 2, "its second life to end")
    assert kinds(scene, "twice")[1] == ("EXPIRED" if again else "SUCCESS")
