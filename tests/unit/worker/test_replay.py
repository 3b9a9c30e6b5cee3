from __future__ import annotations

from typing import Any

import pytest
from celery import Celery

from relier.protocol.outcome import Failure, NewerOutcomeError, Outcome, encode
from relier.worker import replay


@pytest.fixture(scope="module")
def task() -> Any:
    app = Celery("replays", broker="memory://", backend="cache+memory://", set_as_current=False)

    @app.task(name="nothing")
    def nothing() -> None: ...

    return nothing


def test_a_success_without_a_value_is_a_success(task: Any) -> None:
    assert replay.read(task, encode(Outcome("SUCCESS")))[:2] == ("SUCCESS", None)


def test_an_end_that_only_a_newer_worker_knows_is_left_to_it(task: Any) -> None:
    with pytest.raises(NewerOutcomeError):
        replay.read(task, encode(Outcome("PAUSED")))


def test_a_rejection_keeps_its_reason(task: Any) -> None:
    failure = Failure("Reject", "celery.exceptions", ["no", "False"])
    ended = replay.read(task, encode(Outcome("REJECTED", failure=failure, letter="rejected")))
    assert (ended.value.reason, ended.value.requeue) == ("no", False)


def test_children_come_back_as_results(task: Any) -> None:
    child = task.app.GroupResult("group", [task.AsyncResult("a"), task.AsyncResult("b")])
    kept = encode(Outcome("SUCCESS", children=[child.as_tuple(), task.AsyncResult("c").as_tuple()]))
    children = replay.children(task, replay.decode(kept))
    assert children == [child, task.AsyncResult("c")]
