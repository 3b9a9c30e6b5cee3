"""`expires`: until when a task may begin. Like a delay it is kept by the server's clock.

A publish sends what is left of it, by the clock that it was said by; the record of the task's life
says when that is over. The message keeps Celery's own header, for stock workers, and a mark that
has relier's workers ask the record.
"""

from __future__ import annotations

from typing import Any

from celery._state import get_current_worker_task

from relier.store.running import Started
from relier.worker.delivery import until_ms

HEADER = "rl_expires"


def keep(headers: dict[str, Any]) -> int | str:
    """Mark a message whose expiry the server keeps.

    Args:
        headers: of a task message on its way; the mark in them is an earlier publish's.

    Returns:
        The ms that are left; "" when there is nothing to tell: it never expires, or a retry has
        taken over the expiry of its task, which its record has.
    """
    headers.pop(HEADER, None)
    expires = headers.get("expires")
    if not expires:
        return ""
    left_ms: int | str = ""
    if not _is_taken_over(headers):
        try:
            left_ms = until_ms(expires)
        except ValueError:
            return ""  # no time at all; whoever takes the message will say so
    headers[HEADER] = 1
    return left_ms


def is_kept(request: Any) -> bool:
    """Return whether a message says that its record has its expiry."""
    return bool(request.get(HEADER))


def resolved(started: Started, request: Any) -> Started:
    """Judge by the clocks of producer and worker, as Celery does, where the record is gone."""
    if started.revoked != "unkept":
        return started
    try:
        late = until_ms(request.expires) < 0
    except ValueError:
        late = False
    return started._replace(revoked="expired" if late else "")


def _is_taken_over(headers: dict[str, Any]) -> bool:
    """Return whether this is the running task's own id and expiry: Celery passes it along.

    Who said it did so by another clock than this machine's.
    """
    task = get_current_worker_task()
    request = task.request if task is not None else None
    return (
        request is not None
        and request.id == headers["id"]
        and str(request.expires) == str(headers["expires"])
    )
