"""Give what a task publishes ids of its parent's own, so that sending it again is recognised."""

from __future__ import annotations

from collections.abc import Iterator

from celery.canvas import Signature

from relier.protocol.identity import derive
from relier.worker.publish import Consequence


def pin(signature: Signature, parent: Consequence, path: str) -> Signature:
    """Give a signature and all below it ids derived from their parent, where they have none."""
    kind = signature.get("subtask_type")
    # A chord's own id becomes its header's group id.
    if kind in (None, "group", "chord") and not signature.options.get("task_id"):
        signature.options["task_id"] = derived_id(parent, path)
    for index, child in enumerate(_children(signature, kind)):
        pin(child, parent, f"{path}.{index}")
    return signature


def derived_id(parent: Consequence, path: str) -> str:
    """Return the id, in the form of a UUID, of one of a parent's consequences."""
    text = derive(parent.root, parent.task_id, parent.generation, f"id {path}")
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _children(signature: Signature, kind: str | None) -> Iterator[Signature]:
    if kind in ("group", "chain"):
        yield from (child for child in signature.kwargs["tasks"] if isinstance(child, Signature))
    elif kind == "chord":
        header = signature.kwargs.get("header")
        parts = [header] if isinstance(header, Signature) else header or ()
        body = signature.kwargs.get("body")
        yield from (child for child in (*parts, body) if isinstance(child, Signature))
