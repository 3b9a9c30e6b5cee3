"""Send what follows from a committed outcome: callbacks, chain, chord part, result, errbacks.

Everything here may happen again after a crash, so each publish derives its id and its token from
the parent, and the server recognises it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from celery.app.task import Context
from celery.backends.redis import RedisBackend
from celery.canvas import Signature, maybe_signature

from relier.protocol.identity import derive
from relier.store import publishing
from relier.store.broker import Broker
from relier.store.publishing import Outgoing
from relier.worker.publish import Consequence, on_behalf_of

_CHORD_LEASE_PAUSE_S = 0.1


def send_success(
    task: Any, request: Context, value: Any, parent: Consequence, *, store_result: bool, again: bool
) -> None:
    """Send callbacks and the rest of the chain, store the result, count the chord part."""
    inherit = task.app.conf.task_inherit_parent_priority
    options = {
        "parent_id": request.id,
        "root_id": request.root_id or request.id,
        "priority": request.delivery_info.get("priority") if inherit else None,
    }
    with on_behalf_of(parent):
        for index, callback in enumerate(request.callbacks or ()):
            signature = maybe_signature(callback, app=task.app).clone()
            pin(signature, parent, f"callback {index}")
            signature.apply_async((value,), **options)
        if request.chain:
            following = maybe_signature(request.chain[-1], app=task.app).clone()
            pin(following, parent, "chain")
            following.apply_async((value,), chain=request.chain[:-1], **options)
    with _chord_part(task, request, again=again):
        task.backend.mark_as_done(request.id, value, request, store_result)


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
    request.errbacks = [
        _pinned(maybe_signature(errback, app=task.app).clone(), parent, f"errback {index}")
        for index, errback in enumerate(request.errbacks or ())
    ]
    with _chord_part(task, request, again=again), on_behalf_of(parent):
        task.backend.mark_as_failure(
            request.id, error, traceback, request=request, store_result=store_result
        )


def send_held_back(broker: Broker, messages: list[tuple[str, Outgoing]]) -> None:
    """Send what the task itself published while it was being replaced."""
    for queue, message in messages:
        broker.store.run(publishing.enqueue(broker.keys, queue, [message]))


class _chord_part:  # noqa: N801 - used as a context manager
    """Publish a chord's body under a token of the chord, whichever part comes last."""

    def __init__(self, task: Any, request: Context, *, again: bool) -> None:
        self._scope: Any = None
        if request.chord and request.group:
            if again and isinstance(task.backend, RedisBackend):
                _await_chord_lease(task.backend, request.group)
            body = Consequence(request.group, "chord body", 0)
            self._scope = on_behalf_of(body)

    def __enter__(self) -> None:
        if self._scope:
            self._scope.__enter__()

    def __exit__(self, *error: Any) -> None:
        if self._scope:
            self._scope.__exit__(*error)


def _await_chord_lease(backend: Any, group_id: str) -> None:
    """Wait while a dead process's lease on a chord's body lasts.

    It may have died between counting the last part and publishing the body; while its lease stands,
    counting again would find the chord taken and publish nothing.
    """
    lease = backend.get_key_for_group(group_id, ".c")
    size = backend.get_key_for_group(group_id, ".s")
    while True:
        holder = backend.client.get(lease)
        if holder in (None, b"done", "done") or not backend.client.exists(size):
            return
        time.sleep(_CHORD_LEASE_PAUSE_S)


def pin(signature: Signature, parent: Consequence, path: str) -> None:
    """Give a signature and all below it ids derived from their parent, where they have none."""
    kind = signature.get("subtask_type")
    if kind in (None, "group") and not signature.options.get("task_id"):
        signature.options["task_id"] = _uuid(parent, path)
    for index, child in enumerate(_children(signature, kind)):
        pin(child, parent, f"{path}.{index}")


def _pinned(signature: Signature, parent: Consequence, path: str) -> Signature:
    pin(signature, parent, path)
    return signature


def _children(signature: Signature, kind: str | None) -> Iterator[Signature]:
    if kind in ("group", "chain"):
        yield from (child for child in signature.kwargs["tasks"] if isinstance(child, Signature))
    elif kind == "chord":
        header, body = signature.kwargs.get("header"), signature.kwargs.get("body")
        if isinstance(header, Signature):
            yield header
        if isinstance(body, Signature):
            yield body


def _uuid(parent: Consequence, path: str) -> str:
    text = derive(parent.root, parent.task_id, parent.generation, f"id {path}")
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
