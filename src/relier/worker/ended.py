"""How a task's body ended, as a value."""

from __future__ import annotations

from typing import Any, NamedTuple

from billiard.einfo import ExceptionInfo
from celery.exceptions import TaskRevokedError


class NotRunError(TaskRevokedError):
    """What Celery's main process hears of a task whose body did not run: it was revoked, or late.

    A class of its own: a body may raise Celery's, of a task that it waited for.
    """


class Ended(NamedTuple):
    """How a body ended.

    Args:
        state: Celery's state.
        value: what it returned, or the exception.
        einfo: of an exception.
        letter: why the task goes to the dead letters, or "" when it does not.
    """

    state: str
    value: Any
    einfo: ExceptionInfo | None = None
    letter: str = ""

    @property
    def label(self) -> str:
        """Return the state as events and counters name it."""
        return "EXPIRED" if self.state == "REVOKED" and str(self.value) == "expired" else self.state

    @property
    def traceback(self) -> str:
        """Return the traceback as text."""
        return str(self.einfo.traceback) if self.einfo else ""
