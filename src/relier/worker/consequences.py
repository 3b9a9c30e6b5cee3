"""Send what follows from a committed outcome: callbacks, chain, chord part, result, errbacks.

Everything here may happen again after a crash, so each publish derives its id and its token from
the parent, and the server recognises it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from celery import states
from celery.app.task import Context
from celery.backends.redis import RedisBackend
from celery.canvas import Signature, maybe_signature
from celery.utils.functional import maybe_list

from relier.protocol.identity import derive
from relier.store import publishing
from relier.store.broker import Broker
from relier.store.publishing import Outgoing
from relier.store.scripts import load
from relier.worker.publish import Consequence, on_behalf_of

_FREE_CHORD = load("free_chord")


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
    with _chord_part(task, request, parent, again=again):
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
    with _chord_part(task, request, parent, again=again):
        if again and isinstance(task.backend, RedisBackend):
            _count_failed_steps(task.backend, request, error)
        task.backend.mark_as_failure(
            request.id, error, traceback, request=request, store_result=store_result
        )


def send_revoked(
    task: Any, request: Context, parent: Consequence, *, store_result: bool, again: bool
) -> None:
    """Store the revocation and count the chord part."""
    with _chord_part(task, request, parent, again=again):
        task.backend.mark_as_revoked(
            request.id, "terminated", request=request, store_result=store_result
        )


def send_held_back(broker: Broker, messages: list[tuple[str, Outgoing]]) -> None:
    """Send what the task itself published while it was being replaced."""
    for queue, message in messages:
        broker.store.run(publishing.enqueue(broker.keys, queue, [message]))


class _chord_part:  # noqa: N801 - used as a context manager
    """Publish a chord's body, or its errbacks, under ids and tokens of the chord's own.

    Whichever part comes last, and however often, they are the same tasks.
    """

    def __init__(self, task: Any, request: Context, parent: Consequence, *, again: bool) -> None:
        if again and isinstance(task.backend, RedisBackend):
            _free_leases(task.backend, request)
        if request.chord and request.group:
            parent = _chord(request.group)
            request.chord = _with_pinned_errbacks(request.chord, parent, task.app)
        for step in request.chain or ():
            options = step["options"]
            if options.get("chord") and options.get("group_id"):
                options["chord"] = _with_pinned_errbacks(
                    options["chord"], _chord(options["group_id"]), task.app
                )
        self._scope = on_behalf_of(parent)

    def __enter__(self) -> None:
        self._scope.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._scope.__exit__(*error)


def _count_failed_steps(backend: Any, request: Context, error: BaseException) -> None:
    """Count the later steps of a failed chain as chord parts, whatever their stored state.

    Celery stores a step's failure, then counts it, and counts no step whose failure is stored: a
    process that died in between would have left the chord waiting for ever. A part counts once.
    """
    for step in request.chain or ():
        if step["options"].get("chord"):
            part = Context(step)
            part.update(part.options)
            part.id, part.group = part.options.get("task_id"), part.options.get("group_id")
            backend.on_chord_part_return(part, states.FAILURE, error)


def _chord(group_id: str) -> Consequence:
    return Consequence(group_id, "chord body", 0)


def _free_leases(backend: Any, request: Context) -> None:
    """Take over the leases that a dead process may hold on the bodies of its chords.

    It may have died between counting the last part and publishing the body; while its lease
    stands, counting again would find the chord taken and publish nothing.
    """
    groups = [request.group] if request.chord and request.group else []
    steps = [step["options"] for step in request.chain or ()]
    groups += [each["group_id"] for each in steps if each.get("chord") and each.get("group_id")]
    for group_id in groups:
        backend.client.eval(_FREE_CHORD.source, 1, backend.get_key_for_group(group_id, ".c"))


def _with_pinned_errbacks(body: Any, chord: Consequence, app: Any) -> Signature:
    """Return a chord's body whose errbacks have ids of the chord's own."""
    pinned: Signature = maybe_signature(body, app=app).clone()
    options = pinned.options
    options["link_error"] = [
        _pinned(maybe_signature(errback, app=app).clone(), chord, f"errback {index}")
        for index, errback in enumerate(maybe_list(options.get("link_error")) or ())
    ]
    return pinned


def pin(signature: Signature, parent: Consequence, path: str) -> None:
    """Give a signature and all below it ids derived from their parent, where they have none."""
    kind = signature.get("subtask_type")
    # A chord's own id becomes its header's group id.
    if kind in (None, "group", "chord") and not signature.options.get("task_id"):
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
        header = signature.kwargs.get("header")
        parts = [header] if isinstance(header, Signature) else header or ()
        body = signature.kwargs.get("body")
        yield from (child for child in (*parts, body) if isinstance(child, Signature))


def _uuid(parent: Consequence, path: str) -> str:
    text = derive(parent.root, parent.task_id, parent.generation, f"id {path}")
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
