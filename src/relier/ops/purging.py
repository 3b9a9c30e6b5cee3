"""Empty a queue: what waits there ends, and leaves word of it."""

from __future__ import annotations

import json
import secrets
from base64 import b64decode
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from relier.protocol import identity
from relier.protocol.outcome import Failure, Outcome, encode
from relier.store import purging, reading
from relier.store.client import Store
from relier.store.purging import MOST_PER_PURGE, Doomed

_MOST_BYTES = 256_000
"""Per call: longer texts take the server too long to compare."""

_MOST_VAIN_LOOKS = 50
_SAMPLED = 1000

_NOTHING_FOLLOWS = b'{"callbacks": null, "errbacks": null, "chain": null, "chord": null}]'
_TAIL_CHARS = -(-len(_NOTHING_FOLLOWS) // 3) * 4 + 4
"""So many characters at the end of a base64 text hold that."""

_REVOKED = encode(
    Outcome(state="REVOKED", failure=Failure("TaskRevokedError", "celery.exceptions", ["purged"]))
)


@dataclass(slots=True)
class Purged:
    """What a purge did, or would do.

    Args:
        dry_run: whether nothing was touched.
        waiting: messages of its lists; ``scheduled``: of its schedule.
        ended: of these, tasks that are over.
        revoked: tasks that workers conclude as revoked, for a chord or a result waits for them.
        others: copies of tasks that go on elsewhere, and messages that carry no task.
        left: messages that others took or put back meanwhile, and that still wait.
        names: the tasks' names in a sample of 1,000 messages, the most frequent first.
    """

    queue: str
    dry_run: bool
    waiting: int = 0
    scheduled: int = 0
    ended: int = 0
    revoked: int = 0
    others: int = 0
    left: int = 0
    names: dict[str, int] = field(default_factory=dict)

    @property
    def removed(self) -> int:
        """Return how many messages are gone."""
        return self.waiting + self.scheduled


def preview(store: Store, queue: str, *, scheduled: bool) -> Purged:
    """Say what a purge would remove."""
    found = Purged(queue, dry_run=True)
    counts: Counter[str] = Counter()
    for place in _places(scheduled=scheduled):
        size = reading.size(store, queue, place)
        if place is None:
            found.scheduled += size
        else:
            found.waiting += size
    for source in (reading.scheduled, reading.waiting)[0 if scheduled else 1 :]:
        for each in source(store, queue, _SAMPLED - counts.total()):
            counts[_name(each.raw)] += 1
    found.names = dict(counts.most_common())
    return found


def purge(
    store: Store,
    queue: str,
    *,
    scheduled: bool = False,
    revoke: bool = False,
    on_progress: Callable[[int], None] = lambda _: None,
) -> Purged:
    """Remove as many messages as wait in a queue now, batch by batch.

    Args:
        scheduled: those that are not due yet, too.
        revoke: have workers conclude every task as revoked, so that its result says so; else only
            those that a chord, or the rest of a chain, may wait for.
        on_progress: called with the number of messages removed so far.
    """
    done = Purged(queue, dry_run=False)
    for place in _places(scheduled=scheduled):
        _empty(store, done, place, revoke=revoke, on_progress=on_progress)
    return done


def _places(*, scheduled: bool) -> list[str | None]:
    # The schedule first: what is due meanwhile goes to the lists.
    return [*([None] if scheduled else []), *reading.SUFFIXES]


def _empty(
    store: Store,
    done: Purged,
    place: str | None,
    *,
    revoke: bool,
    on_progress: Callable[[int], None],
) -> None:
    left, page, vain = reading.size(store, done.queue, place), 1, 0
    while left > 0 and vain < _MOST_VAIN_LOOKS:
        raws = reading.oldest(store, done.queue, place, min(page, left))
        if not raws:
            return
        removed = 0
        for batch in _batches(raws):
            doomed = [_doomed(raw, place, revoke=revoke) for raw in batch]
            batch_id = secrets.token_hex(8)
            did = store.run(
                purging.purge(store.keys, done.queue, batch_id, place, doomed, _REVOKED)
            )
            removed += did.removed
            done.ended += did.ended
            done.revoked += did.revoked
            done.others += did.others
        if place is None:
            done.scheduled += removed
        else:
            done.waiting += removed
        # What workers took meanwhile is not made up for by what has come since.
        left = min(left - removed, reading.size(store, done.queue, place))
        vain = 0 if removed else vain + 1
        page = _next_page(page, raws)
        on_progress(done.removed)
    done.left += left


def _next_page(page: int, raws: Sequence[bytes]) -> int:
    """Return how many messages to ask for: no more than a few calls' worth, however large."""
    largest = max(map(len, raws))
    return max(1, min(2 * page, MOST_PER_PURGE, 4 * _MOST_BYTES // max(largest, 1)))


def _batches(raws: Sequence[bytes]) -> list[list[bytes]]:
    batches: list[list[bytes]] = [[]]
    total = 0
    for raw in raws:
        if batches[-1] and total + len(raw) > _MOST_BYTES:
            batches.append([])
            total = 0
        batches[-1].append(raw)
        total += len(raw)
    return batches


def _doomed(stored: bytes, place: str | None, *, revoke: bool) -> Doomed:
    raw = stored if place is not None else reading.unwrap(stored).raw
    payload = _payload(raw)
    headers = payload.get("headers") if payload else None
    if not payload or not isinstance(headers, dict) or not headers.get("task"):
        return Doomed(stored)
    try:
        who = identity.identify(headers, str(payload["properties"]["delivery_tag"]))
        who.task_id.encode()
    except (KeyError, TypeError, ValueError, OverflowError):
        return Doomed(stored)
    follows = revoke or _may_be_waited_for(payload)
    return Doomed(stored, who.task_id, who.token, who.generation, follows)


def _payload(raw: bytes) -> dict[str, Any] | None:
    try:
        payload = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return payload if isinstance(payload, dict) else None


def _may_be_waited_for(payload: dict[str, Any]) -> bool:
    """Return whether a chord may count the task, or a later step of its chain.

    What cannot be told here (another serialization, another protocol) a worker can.
    """
    body, properties = payload.get("body"), payload.get("properties")
    encoding = properties.get("body_encoding") if isinstance(properties, dict) else None
    if payload.get("content-type") != "application/json" or not isinstance(body, str):
        return True
    try:
        if encoding == "base64":
            if b64decode(body[-_TAIL_CHARS:]).endswith(_NOTHING_FOLLOWS):
                return False
            body = b64decode(body).decode()
        embed = json.loads(body)[2]
        return bool(embed.get("chord") or embed.get("chain"))
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return True


def _name(raw: bytes) -> str:
    payload = _payload(raw)
    headers = payload.get("headers") if payload else None
    name = headers.get("task") if isinstance(headers, dict) else None
    return str(name) if name else "(no task)"
