"""Celery's result backend: less its subscription at every dispatch, with our chords."""

from __future__ import annotations

from typing import Any

from celery import Celery
from celery.backends.redis import RedisBackend

from relier.worker import chords


def take_over(app: Celery) -> None:
    """Have an app's chords count our way, and let it subscribe to a result when somebody waits.

    Celery's subscription at dispatch costs a round trip, and keeps trying for twenty seconds and
    more when Redis is away, before anything is published. Waiting for a result subscribes anyway,
    and reads what is there first.
    """
    make = app._get_backend

    def get_backend() -> Any:
        return _taken_over(make())

    app._get_backend = get_backend
    if app._backend is not None:
        _taken_over(app._backend)


def _taken_over(backend: Any) -> Any:
    if isinstance(backend, RedisBackend):
        backend.on_task_call = _no_subscription
    return chords.take_over(backend)


def _no_subscription(_producer: object, _task_id: str) -> None:
    """Take the place of the backend's ``on_task_call``."""
