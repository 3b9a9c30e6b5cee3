"""relier: a reliability layer for Celery on Redis.

The public names are loaded when they are first used, so that ``rl --help`` and ``import relier`` do
not wait for Celery.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from relier.version import __version__

if TYPE_CHECKING:
    from relier.errors import StaleFenceError
    from relier.protocol.migrations import SchemaRegistry
    from relier.tasks.context import TaskContext, task_context
    from relier.tasks.decorator import rl_task
    from relier.tasks.install import Relier
    from relier.tasks.lock import idempotency_lock
    from relier.tasks.receipt import Receipt

__all__ = [
    "Receipt",
    "Relier",
    "SchemaRegistry",
    "StaleFenceError",
    "TaskContext",
    "__version__",
    "idempotency_lock",
    "rl_task",
    "task_context",
]

_HOMES = {
    "Receipt": "relier.tasks.receipt",
    "Relier": "relier.tasks.install",
    "SchemaRegistry": "relier.protocol.migrations",
    "StaleFenceError": "relier.errors",
    "TaskContext": "relier.tasks.context",
    "idempotency_lock": "relier.tasks.lock",
    "rl_task": "relier.tasks.decorator",
    "task_context": "relier.tasks.context",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'relier' has no attribute {name!r}")
    return getattr(import_module(home), name)
