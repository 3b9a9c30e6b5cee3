"""Send what follows from a committed outcome: callbacks, chain, chord part, result, errbacks.

Everything here may happen again after a crash, so each publish derives its id and its token from
the parent, and the server recognises it.
"""

from __future__ import annotations

from typing import Any

from celery.app.task import Context
from celery.canvas import maybe_signature
from celery.exceptions import TaskRevokedError

from relier.store import publishing
from relier.store.broker import Broker
from relier.store.publishing import Outgoing
from relier.worker import chords
from relier.worker.pinning import pin
from relier.worker.publish import Consequence, on_behalf_of


def send_success(
    task: Any, request: Context, value: Any, parent: Consequence, *, store_result: bool
) -> None:
    """Send callbacks and the rest of the chain, store the result, count the chord part."""
    inherit = task.app.conf.task_inherit_parent_priority
    options = {
        "parent_id": request.id,
        "root_id": request.root_id or request.id,
        "priority": request.delivery_info.get("priority") if inherit else None,
    }
    with on_behalf_of(parent), chords.trouble_travels():
        for index, callback in enumerate(request.callbacks or ()):
            signature = maybe_signature(callback, app=task.app).clone()
            pin(signature, parent, f"callback {index}").apply_async((value,), **options)
        if request.chain:
            following = maybe_signature(request.chain[-1], app=task.app).clone()
            pin(following, parent, "chain")
            following.apply_async((value,), chain=request.chain[:-1], **options)
        backend = chords.take_over(task.backend)
        backend.mark_as_done(request.id, value, request, store_result)


def send_failure(
    task: Any,
    request: Context,
    error: BaseException,
    traceback: str,
    parent: Consequence,
    *,
    store_result: bool,
    again: bool,
) -> None:
    """Store the failure, count the chord part, fail the chain, call errbacks."""
    backend = chords.take_over(task.backend)
    with on_behalf_of(parent), chords.trouble_travels():
        backend.mark_as_failure(
            request.id, error, traceback, request=request, store_result=store_result
        )
        if again:
            chords.count_failed_steps(backend, request.chain, error)


def send_revoked(
    task: Any, request: Context, reason: str, parent: Consequence, *, store_result: bool
) -> None:
    """Store the revocation and count the chord part, also one that a later step of the chain is.

    Celery leaves a chord waiting for ever whose part is a chain that was revoked at an early step.
    """
    backend = chords.take_over(task.backend)
    with on_behalf_of(parent), chords.trouble_travels():
        backend.mark_as_revoked(request.id, reason, request=request, store_result=store_result)
        chords.count_failed_steps(backend, request.chain, TaskRevokedError(reason))


def send_held_back(broker: Broker, messages: list[tuple[str, Outgoing]]) -> None:
    """Send what the task itself published while it was being replaced."""
    for queue, message in messages:
        broker.store.run(publishing.enqueue(broker.keys, queue, [message]))
