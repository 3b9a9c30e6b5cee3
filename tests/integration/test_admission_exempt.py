"""What was accepted goes on: it is never refused, however shut the gate."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from celery import Celery, chain, chord, group

from relier import Relier
from relier.errors import AdmissionRejectedError
from relier.store.embedded import EmbeddedServer
from support.kitchen import RESULT_S, Kitchen, open_kitchen
from support.wait import wait_for

WINDOW_S = 3600.0


@pytest.fixture(scope="module", params=["redis", "file"])
def shut(
    request: pytest.FixtureRequest,
    session_server: EmbeddedServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Kitchen]:
    """A kitchen whose worker finds the gate shut; who dispatches from outside has none."""
    folder: Path = tmp_path_factory.mktemp("shut")
    results = folder / "results"
    results.mkdir()
    backend = f"file://{results}" if request.param == "file" else None
    settings = {"RELIER_ADMISSION_LIMIT": "1", "RELIER_ADMISSION_WINDOW": "3600"}
    settings["RELIER_ADMISSION_MAX_QUEUE_DEPTH"] = "1"
    with open_kitchen(session_server, folder, backend=backend, settings=settings) as running:
        _take_the_last_slot(session_server.url)
        yield running
        running.client.delete("nobody")


def _take_the_last_slot(url: str) -> None:
    app = Celery("last", broker=url, set_as_current=False)
    Relier(app, env="development", admission_limit=1, admission_window_s=WINDOW_S)
    app.send_task("add", (1, 1), queue="nobody")
    app.close()


def test_the_gate_is_shut_for_what_a_body_dispatches(shut: Kitchen) -> None:
    for way in ("push", "delay"):
        error = shut.tasks["order"].push(way).get(RESULT_S, propagate=False)
        assert isinstance(error, AdmissionRejectedError), error
        assert WINDOW_S - 600 < error.retry_after <= WINDOW_S


def test_retries_and_replacements_are_never_refused(shut: Kitchen) -> None:
    assert shut.tasks["retry"].push(2).get(RESULT_S) == 2
    for by, value in (("task", 3), ("chain", 6), ("group", [3, 7]), ("chord", 10)):
        assert shut.tasks["replace"].push(by).get(RESULT_S) == value
    word = shut.word()
    assert shut.tasks["reject_twice"].push(word).get(RESULT_S) == "done"


def test_consequences_are_never_refused(shut: Kitchen) -> None:
    add, total, write = (shut.tasks[name] for name in ("add", "total", "write"))
    word = shut.word()
    assert chain(add.s(1, 2), add.s(3), add.s(4)).apply_async().get(RESULT_S) == 10
    assert chord([add.s(1, 2), add.s(3, 4)], total.s()).apply_async().get(RESULT_S) == 10
    assert group(add.s(1, 2), add.s(3, 4)).apply_async().get(RESULT_S) == [3, 7]
    add.apply_async((1, 2), link=write.si(word))
    wait_for(lambda: shut.journal.count("write", word), RESULT_S)
    failed = shut.tasks["end"].apply_async(("error",), link_error=shut.tasks["on_error"].s())
    wait_for(lambda: shut.journal.count("on_error", failed.id), RESULT_S)


BEAT = """
import os
from celery import Celery
from relier import Relier, rl_task

app = Celery("beat", broker=os.environ["BEAT_URL"])
Relier(app, env="development", admission_limit=1, admission_window_s=3600)
app.conf.beat_schedule = {"tick": {"task": "tick", "schedule": 0.05}}

@rl_task(name="tick", app=app)
def tick():
    pass
"""


def test_beat_is_never_refused(fresh_server: EmbeddedServer, tmp_path: Path) -> None:
    (tmp_path / "beat_app.py").write_text(BEAT)
    options = ["-s", str(tmp_path / "schedule"), "--pidfile", str(tmp_path / "pid")]
    beat = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "beat_app", "beat", *options],
        cwd=tmp_path,
        env={**os.environ, "BEAT_URL": fresh_server.url},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with redis.Redis.from_url(fresh_server.url) as client:
        try:
            wait_for(lambda: client.llen("celery") >= 3, 30)
        finally:
            beat.terminate()
            beat.wait(30)
