"""Everything known of one task."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from relier.ops import messages, payload, saved
from relier.ops.events import Event
from relier.ops.messages import Signature
from relier.ops.places import DEAD, TERMINAL, favoured, letter_of
from relier.ops.saved import Saved
from relier.ops.search import locate
from relier.ops.timeline import Subject, of_task
from relier.protocol.envelope import Keyring
from relier.store import fleet as store_fleet
from relier.store import reading
from relier.store.client import Store


@dataclass(frozen=True, slots=True)
class TaskDetail:
    """Everything known of one task.

    Args:
        state: one of ``STATES``, or "committed", or "unknown" for a record without its message.
        where: the same in words.
        life: which life of its id; an ended or dead one that is dispatched anew begins another.
        args, kwargs: as JSON, or as its producer printed them; "" once the message is gone.
        blame: deaths of its own process; ``interruptions``: of a whole worker with neighbours.
        schema_version: of its arguments; 0 once its message is gone.
        signature: of its message: who vouches for it; None once the message is gone.
        result: Celery's state of the result, or "" when it is not in this database.
        reason, error: of a dead letter, else "".
        checkpoint: what it saved last, or None.
        raw: its message, "" once that is gone; ``size_bytes`` is its size.
        left_out: whether its message was too large to be read unasked.
    """

    task_id: str
    name: str
    state: str
    where: str
    queue: str
    worker: str
    fence: int
    attempt: int
    blame: int
    interruptions: int
    retries: int
    life: int
    accepted_ms: int | None
    started_ms: int | None
    due_ms: int | None
    args: str
    kwargs: str
    schema_version: int
    signature: Signature | None
    result: str
    result_value: str
    reason: str
    error: str
    checkpoint: Saved | None
    raw: str
    size_bytes: int
    left_out: bool
    timeline: tuple[Event, ...]
    now_ms: int


def inspect(
    store: Store, task_id: str, keyring: Keyring, *, whole: bool = False
) -> TaskDetail | None:
    """Find out everything about one task; None when nothing is known of it.

    Args:
        keyring: the keys to verify its message with.
        whole: read its message whatever its size.
    """
    record = reading.records(store, [task_id])[0]
    queues = store_fleet.known_queues(store)
    since_ms = int(record.get("at") or 0)
    alive = record.get("s") not in (None, *TERMINAL)
    # A letter of an earlier life stays while the task lives again.
    letter = None if alive else letter_of(store, favoured(queues, record.get("q")), task_id)
    meta = _result(reading.stored_result(store, task_id))
    place = locate(store, task_id, record, queues, whole=whole)
    timeline = of_task(
        store,
        Subject(
            task_id,
            home=letter.queue if letter else record.get("q", ""),
            lines=letter.lines if letter else reading.history(store, task_id),
            since_ms=since_ms,
            hands=(place.queue, place.worker, place.claim) if place.claim else None,
        ),
        queues,
    )
    if not (record or timeline or letter or meta[0] or place.message):
        return None
    members = reading.worker_names(store, filter(None, [place.worker, record.get("w")]))
    if letter is not None:
        place = replace(place, state=DEAD, where=f"in the dead letters of {letter.queue}")
    message = letter.message if letter and letter.message else place.message
    worker = place.worker or record.get("w", "")
    spelled = (message.raw, message.args, message.kwargs) if message else None
    args, kwargs = payload.spelled(*spelled) if spelled else ("", "")
    return TaskDetail(
        task_id=task_id,
        name=record.get("n") or (message.name if message else "") or _name(timeline),
        state=place.state,
        where=place.where.replace(worker, members.get(worker, worker)) if worker else place.where,
        queue=record.get("q") or place.queue or (timeline[-1].queue if timeline else ""),
        worker=members.get(worker, worker),
        fence=place.fence or _fence(timeline),
        attempt=int(record.get("a") or 0),
        blame=int(record.get("b") or 0),
        interruptions=int(record.get("i") or 0),
        retries=int(record.get("g") or 0) % 2**32,
        life=int(record.get("l") or 1),
        accepted_ms=since_ms or None,
        started_ms=int(record["st"]) if record.get("st") else None,
        due_ms=int(record["due"]) if record.get("due") else None,
        args=args,
        kwargs=kwargs,
        raw=message.raw.decode(errors="backslashreplace") if message else "",
        size_bytes=len(message.raw) if message else place.size_bytes,
        left_out=message is None and place.size_bytes > 0,
        schema_version=message.schema_version if message else 0,
        signature=messages.signature(message.raw, keyring) if message else None,
        result=meta[0],
        result_value=meta[1],
        reason=letter.reason if letter else "",
        error=letter.error if letter else "",
        checkpoint=letter.checkpoint if letter else saved.read(record.get("cp", "")),
        timeline=timeline,
        now_ms=reading.now_ms(store),
    )


def _fence(timeline: Sequence[Event]) -> int:
    return next((event.fence for event in reversed(timeline) if event.fence), 0)


def _name(timeline: Sequence[Event]) -> str:
    return next((e.detail for e in timeline if e.kind == "accepted"), "")


def _result(raw: bytes | None) -> tuple[str, str]:
    """Return Celery's state of a stored result and its value in words."""
    if raw is None:
        return "", ""
    try:
        meta = json.loads(raw)
    except ValueError:
        return "stored", "not in JSON"
    if not isinstance(meta, dict):
        return "stored", ""
    return str(meta.get("status", "")), json.dumps(meta.get("result"))
