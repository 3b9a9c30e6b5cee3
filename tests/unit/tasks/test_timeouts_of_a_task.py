from __future__ import annotations

import asyncio
from typing import Any

import pytest
from celery import Celery

from relier import Relier, rl_task
from relier.errors import ConfigurationError
from relier.protocol.timeouts import Limits
from relier.tasks.task import RelierTask
from relier.worker.timing import limits_of, timing_of, what_a_pool_cannot


def _app(**settings: object) -> Celery:
    app = Celery("late", broker="redis://127.0.0.1:1/0", set_as_current=False)
    Relier(app, **settings)
    return app


def _task(app: Celery, **options: Any) -> Any:
    @rl_task(app=app, shared=False, name="late", **options)
    def late() -> None: ...

    return late


@pytest.mark.parametrize(
    "options",
    [
        {"soft_timeout": 2, "hard_timeout": 2},
        {"soft_timeout": 3, "hard_timeout": 2},
        {"soft_timeout": 0},
        {"hard_timeout": -1},
        {"on_soft_timeout": "save"},
        {"on_soft_timeout": lambda: None},
        {"soft_timeout": 30},  # not below the general hard timeout
    ],
)
def test_what_cannot_work_is_an_error_at_decoration(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"timeout"):
        _task(_app(hard_timeout_s=20), **options)


def test_a_base_class_counts_too() -> None:
    class Brief(RelierTask):
        abstract = True
        hard_timeout = 2.0

    app = _app()
    assert limits_of(_task(app, base=Brief)) == Limits(None, 2.0)
    with pytest.raises(ConfigurationError, match="must be below hard_timeout"):
        _task(app, base=Brief, soft_timeout=3)


def test_general_timeouts_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="RELIER_SOFT_TIMEOUT"):
        _app(soft_timeout_s=5, hard_timeout_s=5)
    with pytest.raises(ConfigurationError, match="soft_timeout_s"):
        _app(soft_timeout_s=0)


def test_a_task_without_timeouts_is_not_timed() -> None:
    assert timing_of(_task(_app())) is None
    assert timing_of(_task(_app(), soft_timeout=1)) is not None
    # A drain may call it.
    assert timing_of(_task(_app(), on_soft_timeout=lambda ctx: None)) is not None


def test_an_eager_run_and_a_call_have_no_timeouts() -> None:
    app = _app()

    @rl_task(app=app, shared=False, hard_timeout=0.001)
    async def brief() -> str:
        await asyncio.sleep(0.05)
        return "ended"

    app.conf.task_always_eager = True
    assert brief.delay().get() == "ended"
    assert brief() == "ended"


def test_a_pool_says_what_it_cannot_do() -> None:
    app = _app()
    stopped, raised = _task(app, hard_timeout=5), _task(_app(), soft_timeout=1, raise_on_soft=True)
    assert what_a_pool_cannot("prefork", [stopped, raised]) == ""
    assert "cannot be stopped" in what_a_pool_cannot("threads", [stopped])
    assert "raise_on_soft" in what_a_pool_cannot("threads", [raised])
    assert what_a_pool_cannot("solo", [raised]) == ""
