"""Wait for a condition instead of sleeping and hoping."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

POLL_S = 0.01


def wait_for(
    condition: Callable[[], T], deadline_s: float, message: str | Callable[[], str] = ""
) -> T:
    """Poll until the condition is truthy.

    Args:
        condition: called every `POLL_S`; may return what the caller wants to have.
        deadline_s: how long to wait; be generous, a busy machine is slow.
        message: what was waited for; a callable is asked at the end, for the state then.

    Returns:
        The truthy value.

    Raises:
        AssertionError: the deadline passed.
    """
    deadline = time.monotonic() + deadline_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            said = message() if callable(message) else message
            raise AssertionError(f"not within {deadline_s} s: {said or repr(condition)}")
        time.sleep(POLL_S)
