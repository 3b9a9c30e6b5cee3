"""Celery's Redis result backend, less its subscription at every dispatch."""

from __future__ import annotations

from typing import Any

from celery import Celery
from celery.backends.redis import RedisBackend


def subscribe_late(app: Celery) -> None:
    """Have an app subscribe to a result when somebody waits for it, not when it is dispatched.

    The subscription at dispatch costs a round trip, and keeps trying for twenty seconds and more
    when Redis is away, before anything is published. Waiting for a result subscribes anyway, and
    reads what is there first.
    """
    make = app._get_backend

    def get_backend() -> Any:
        return _unsubscribed(make())

    app._get_backend = get_backend
    if app._backend is not None:
        _unsubscribed(app._backend)


def _unsubscribed(backend: Any) -> Any:
    if isinstance(backend, RedisBackend):
        backend.on_task_call = _no_subscription
    return backend


def _no_subscription(_producer: object, _task_id: str) -> None:
    """Take the place of the backend's ``on_task_call``."""
