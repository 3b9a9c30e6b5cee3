"""What ``rl_task`` is told of a task beside Celery's own options, checked once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from relier.errors import ConfigurationError
from relier.protocol import timeouts
from relier.protocol.idempotency import LONGEST_KEPT_S
from relier.tasks.context import TaskContext

SoftTimeoutHook = Callable[[TaskContext], Any]
"""Called with the task's context; may be a coroutine function."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of a protected task, as ``rl_task`` explains them.

    Raises:
        ConfigurationError: one of them cannot work.
    """

    name: str | None = None
    queue: str | None = None
    idempotent: bool = False
    idempotency_ttl: float | None = None
    idempotency_key: Callable[..., object] | None = None
    soft_timeout: float | None = None
    hard_timeout: float | None = None
    on_soft_timeout: SoftTimeoutHook | None = None
    raise_on_soft: bool = False
    dead_letter: bool = True
    max_resurrections: int | None = None
    admission_key: str | Callable[..., Any] | None = None
    admission_limit: int | None = None

    def __post_init__(self) -> None:
        if self.max_resurrections is not None and self.max_resurrections < 0:
            raise ConfigurationError("max_resurrections must be 0 or more")
        limit = self.admission_limit
        if limit is not None and (self.admission_key is None or limit < 0):
            raise ConfigurationError(
                "admission_limit must be 0 or more, and wants an admission_key: it is a tenant's "
                "limit"
            )
        checked(timeouts.limits, self.soft_timeout, self.hard_timeout)
        checked(timeouts.check_hook, self.on_soft_timeout)
        self._check_idempotency()

    def _check_idempotency(self) -> None:
        ttl_s, key = self.idempotency_ttl, self.idempotency_key
        if not self.idempotent and (ttl_s is not None or key is not None):
            raise ConfigurationError("idempotency_ttl and idempotency_key need idempotent=True")
        if ttl_s is not None and not 0 < ttl_s <= LONGEST_KEPT_S:
            raise ConfigurationError(
                "idempotency_ttl must be more than 0 seconds, and 10 years at most"
            )
        if key is not None and not callable(key):
            raise ConfigurationError("idempotency_key must be a function of the task's arguments")

    def attributes(self) -> dict[str, Any]:
        """Return what they say of the task's class; what is not said is left to its base."""
        said = {
            "name": self.name,
            "queue": self.queue,
            "idempotent": self.idempotent or None,
            "idempotency_ttl": self.idempotency_ttl,
            "idempotency_key": _plain(self.idempotency_key),
            "on_soft_timeout": _plain(self.on_soft_timeout),
            "soft_timeout": self.soft_timeout,
            "hard_timeout": self.hard_timeout,
            "raise_on_soft": self.raise_on_soft or None,
            "dead_letter": self.dead_letter,
            "max_resurrections": self.max_resurrections,
            "admission_limit": self.admission_limit,
        }
        return {name: value for name, value in said.items() if value is not None}


def _plain(function: Callable[..., object] | None) -> staticmethod[..., object] | None:
    # Not a method of the task: it is called with what its own words promise alone.
    return None if function is None else staticmethod(function)


_OWN = frozenset(field.name for field in fields(Options))


def split(given: dict[str, Any]) -> tuple[Options, dict[str, Any]]:
    """Part the options of ``rl_task`` from Celery's.

    Raises:
        ConfigurationError: an option cannot work.
    """
    own = {name: value for name, value in given.items() if name in _OWN}
    return Options(**own), {name: value for name, value in given.items() if name not in _OWN}


def checked(check: Callable[..., object], *values: Any, **others: Any) -> None:
    """Run a check of the protocol, whose ValueError is a mistake in the configuration."""
    try:
        check(*values, **others)
    except ValueError as problem:
        raise ConfigurationError(str(problem)) from None
