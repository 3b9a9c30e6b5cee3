"""Looks at a Celery app: is it under relier, and what of its settings works against that?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from relier.ops.doctor.checks import FAILURE, OK, WARNING, Check, some

_OURS = "relier+"
_CONSUMER = "relier.worker.consumer:Consumer"
_PICKLES = {"pickle", "application/x-python-serialize"}


@dataclass(frozen=True, slots=True)
class AppFacts:
    """What is judged of an app.

    Args:
        name: as it was asked for.
        installed: whether ``Relier(app)`` was called.
        conf: Celery's settings by their lower-case names.
        protected: names of the tasks that relier protects.
        unprotected: of those that it does not.
        result_backend: where results go, without its password; "" for nowhere.
        same_server: whether that is the broker's own server and database.
        signed: whether unsigned messages are refused.
    """

    name: str
    installed: bool
    conf: Mapping[str, Any]
    protected: tuple[str, ...]
    unprotected: tuple[str, ...]
    result_backend: str
    same_server: bool
    signed: bool


def judge(app: AppFacts) -> Iterator[Check]:
    """Yield what was found; one check says so when nothing is wrong."""
    if not app.installed:
        yield Check(
            "app",
            FAILURE,
            f"{app.name} is not under relier: its tasks are as safe as Celery makes them",
            "call Relier(app) where the app is made, after its broker URL is set",
        )
        return
    found = [check for look in _LOOKS if (check := look(app)) is not None]
    yield from found
    if not found:
        yield Check("app", OK, f"{app.name}: {len(app.protected)} tasks, all protected")
    yield _results(app)


def _transport(app: AppFacts) -> Check | None:
    conf = app.conf
    changed = [
        name
        for name, kept in (
            ("broker_url", str(conf.get("broker_url") or "").startswith(_OURS)),
            ("worker_consumer", conf.get("worker_consumer") == _CONSUMER),
            ("broker_transport", not conf.get("broker_transport")),
        )
        if not kept
    ]
    if not changed:
        return None
    return Check(
        "app transport",
        FAILURE,
        f"{some(changed)} changed after Relier(app): its workers use Celery's own transport",
        "set every setting of Celery's before Relier(app), and do not set broker_transport",
    )


def _eager(app: AppFacts) -> Check | None:
    if not app.conf.get("task_always_eager"):
        return None
    return Check(
        "task_always_eager",
        FAILURE,
        "tasks run inside the process that calls them: nothing is queued, nothing comes back",
        "unset task_always_eager outside tests",
    )


def _unprotected(app: AppFacts) -> Check | None:
    if not app.unprotected:
        return None
    fate = "is acknowledged before it runs, and lost with its process"
    if app.conf.get("task_acks_late"):
        fate = "is acknowledged as failed when its process dies"
    if app.conf.get("task_reject_on_worker_lost"):
        fate = "that kills its process comes back without end (task_reject_on_worker_lost)"
    return Check(
        "unprotected tasks",
        WARNING,
        f"{len(app.unprotected)}: {some(app.unprotected)}; each {fate}",
        "use @rl_task for them, or Relier(app, protect_all=True)",
    )


def _visibility(app: AppFacts) -> Check | None:
    options = app.conf.get("broker_transport_options") or {}
    if "visibility_timeout" not in options:
        return None
    return Check(
        "visibility_timeout",
        WARNING,
        f"broker_transport_options sets it to {options['visibility_timeout']}: relier reads none "
        "(a task comes back when its worker is dead, not when it is slow)",
        "remove it, unless stock workers take from the same queues: they deliver a task that runs "
        "longer than this a second time",
    )


def _pickle(app: AppFacts) -> Check | None:
    sends = app.conf.get("task_serializer") == "pickle"
    takes = _PICKLES & set(app.conf.get("accept_content") or ())
    if app.signed or not (sends or takes):
        return None
    which = "task_serializer is pickle" if sends else "accept_content has pickle in it"
    return Check(
        "pickle",
        WARNING,
        f"{which}: who can write to Redis can run any code in your workers",
        "use json, or sign: RELIER_SECRET_KEY and RELIER_REQUIRE_SIGNATURE=true everywhere",
    )


def _prefetch(app: AppFacts) -> Check | None:
    if app.conf.get("worker_prefetch_multiplier") != 0:
        return None
    return Check(
        "worker_prefetch_multiplier",
        WARNING,
        "it is 0, without limit: the first worker claims all that waits, and the others idle",
        "set it to 1 for long tasks, to 4 (the default) or more for short ones",
    )


def _cancelling(app: AppFacts) -> Check | None:
    if not app.conf.get("worker_cancel_long_running_tasks_on_connection_loss"):
        return None
    return Check(
        "worker_cancel_long_running_tasks_on_connection_loss",
        WARNING,
        "running tasks are killed whenever Redis is away for a moment",
        "unset it: a task goes on while Redis is away, and commits when it is back",
    )


def _results(app: AppFacts) -> Check:
    if not app.result_backend:
        return Check("results", OK, "no result_backend: results are not kept")
    if app.same_server:
        return Check("results", OK, "beside the queues: stored in the step that ends the task")
    return Check(
        "results",
        OK,
        f"in {app.result_backend}: stored before the task ends, in a step of its own",
    )


_LOOKS: tuple[Callable[[AppFacts], Check | None], ...] = (
    _transport,
    _eager,
    _unprotected,
    _visibility,
    _pickle,
    _prefetch,
    _cancelling,
)
