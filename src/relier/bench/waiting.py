"""Wait for a condition, with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from relier.errors import RelierError

T = TypeVar("T")

_POLL_S = 0.005


class BenchError(RelierError):
    """A scenario could not be carried out.

    The message says what was waited for; run it again alone (``--only``) on a quieter machine.
    """


def wait_for(condition: Callable[[], T], deadline_s: float, what: str) -> T:
    """Poll until the condition is truthy, and return what it gave.

    Raises:
        BenchError: the deadline passed.
    """
    value = within(condition, deadline_s)
    if not value:
        raise BenchError(f"not within {deadline_s:g} s: {what}")
    return value


def within(condition: Callable[[], T], deadline_s: float) -> T:
    """Poll until the condition is truthy or the deadline passes; return its last value."""
    deadline = time.monotonic() + deadline_s
    while True:
        value = condition()
        if value or time.monotonic() > deadline:
            return value
        time.sleep(_POLL_S)
