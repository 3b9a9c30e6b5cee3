"""Is every task in exactly one place? An account of the whole keyspace.

The fleet may work meanwhile: what seems wrong is looked at again before it is reported.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from relier.ops import messages, repairs
from relier.ops.places import TERMINAL
from relier.ops.repairs import Lost
from relier.store import fleet, reading
from relier.store.broker import Broker
from relier.store.client import Store
from relier.store.reading import walk
from relier.store.reading.walk import PLACES, Found, Keyspace
from relier.store.sweeping import RESERVED_FOR_MS

_LOOKS = 4
_BETWEEN_LOOKS_S = 0.5
_EXAMPLES = 5
_ELSEWHERE = ("", "w", *TERMINAL)
"""States of a record whose message need not be anywhere: a chord or chain goes on in its place."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One way in which the keyspace is not as it should be.

    Args:
        count: how many tasks, keys or files.
        examples: some of them.
        meaning: what it comes from, and what to do.
        harmless: whether it rights itself.
        repaired: how many were put right by this run.
    """

    name: str
    count: int
    examples: tuple[str, ...]
    meaning: str
    harmless: bool = False
    repaired: int = 0


@dataclass(frozen=True, slots=True)
class Account:
    """Where everything is.

    Args:
        places: tasks by place, those that have not ended.
        dead: dead letters.
        records: records seen; those of ended tasks expire.
        findings: what is wrong.
        whole: whether everything was seen in the time there was.
    """

    places: dict[str, int]
    dead: int
    records: int
    findings: tuple[Finding, ...]
    whole: bool
    took_ms: int

    @property
    def clean(self) -> bool:
        """Return whether nothing is left that needs somebody."""
        return all(each.harmless or each.repaired >= each.count for each in self.findings)


def verify(broker: Broker, *, repair: bool = False, within_s: float = 120.0) -> Account:
    """Walk through everything and say what is not where it should be.

    Args:
        repair: put right what the fleet's own scripts can.
        within_s: stop looking after so long, and say so.
    """
    began_s = time.monotonic()
    store, deadline_s = broker.store, began_s + within_s
    keys = walk.keyspace(store, deadline_s)
    queues = fleet.known_queues(store)
    tally = _Tally.of(_everything(store, queues, keys))
    records, missing = _compare(store, tally, keys, deadline_s)
    missing, twice = _look_again(store, queues, deadline_s, missing, tally.twice)
    listed, bodiless = walk.letters_without_body(store, queues)
    lost, bodiless = _lost(store, keys, bodiless)
    done = repairs.repair(broker, lost) if repair else Lost()
    found = (
        _finding(
            "missing",
            sorted(missing),
            "accepted, not ended, and in no place. Something else took the messages: `celery "
            "purge`, a worker without relier, or a server that was restarted with an older log",
        ),
        _finding(
            "copies",
            sorted(twice),
            "in more than one place: a message that was delivered again. One of them starts; the "
            "others are dropped",
            harmless=True,
        ),
        _finding(
            "orphaned claims",
            [f"{each.owner} ({each.queue})" for each in lost.claims],
            "held by workers that have no entry: somebody deleted it. --repair gives them back",
            repaired=len(done.claims),
        ),
        _finding(
            "parked behind nobody",
            [each.owner for each in lost.parked],
            "duplicates whose idempotency key has no owner. --repair wakes them",
            repaired=len(done.parked),
        ),
        _finding(
            "checkpoint files of nobody",
            lost.files,
            "no checkpoint refers to them. --repair removes them, where CHECKPOINT_DIR is mounted",
            repaired=len(done.files),
        ),
        _finding(
            "letters without a body",
            [letter_id for _, letter_id in bodiless],
            "listed as dead, but their message is gone: somebody deleted the keys. `rl dlq purge` "
            "removes what is left of them",
        ),
        _finding(
            "unreadable",
            [""] * tally.unreadable,
            "no task messages; workers make dead letters of them",
            harmless=True,
        ),
    )
    return Account(
        places={place: tally.places[place] for place in PLACES},
        dead=listed,
        records=records,
        findings=tuple(each for each in found if each.count),
        whole=keys.whole,
        took_ms=int((time.monotonic() - began_s) * 1000),
    )


@dataclass
class _Tally:
    """What was found where; ids as numbers, for there may be millions."""

    places: Counter[str]
    seen: set[int]
    twice: set[str]
    unreadable: int = 0

    @classmethod
    def of(cls, found: Iterable[Found]) -> _Tally:
        tally = cls(Counter(), set(), set())
        for each in found:
            tally.places[each.place] += 1
            task_id = each.task_id or messages.task_id(each.raw)
            if not task_id:
                tally.unreadable += 1
            elif hash(task_id) in tally.seen:
                tally.twice.add(task_id)
            else:
                tally.seen.add(hash(task_id))
        return tally


def _everything(store: Store, queues: Sequence[str], keys: Keyspace) -> Iterable[Found]:
    yield from walk.unfinished(store, queues, keys.claims)
    yield from walk.parked(store, keys.parked)


def _compare(
    store: Store, tally: _Tally, keys: Keyspace, deadline_s: float
) -> tuple[int, set[str]]:
    """Return how many records there are, and whose tasks were not found anywhere."""
    records, missing = set[int](), set[str]()
    for task_id, state, _ in walk.records_of_all(store, deadline_s, keys):
        records.add(hash(task_id))
        if state not in _ELSEWHERE and hash(task_id) not in tally.seen:
            missing.add(task_id)
    return len(records), missing


def _look_again(
    store: Store, queues: Sequence[str], deadline_s: float, missing: set[str], twice: set[str]
) -> tuple[set[str], set[str]]:
    """Return what of this is so at each of several looks."""
    for _ in range(_LOOKS):
        if (not missing and not twice) or time.monotonic() > deadline_s:
            break
        time.sleep(_BETWEEN_LOOKS_S)
        counted = Counter(_ids(store, queues, deadline_s, missing | twice))
        twice = {each for each in twice if counted[each] > 1}
        unseen = sorted(each for each in missing if not counted[each])
        states = fleet.states(store, unseen)
        missing = {
            each for each, state in zip(unseen, states, strict=True) if state not in _ELSEWHERE
        }
    return missing, twice


def _ids(store: Store, queues: Sequence[str], deadline_s: float, wanted: set[str]) -> Iterable[str]:
    for each in _everything(store, queues, walk.keyspace(store, deadline_s)):
        task_id = each.task_id or messages.task_id(each.raw)
        if task_id in wanted:
            yield task_id


def _lost(
    store: Store, keys: Keyspace, bodiless: list[tuple[str, str]]
) -> tuple[Lost, list[tuple[str, str]]]:
    """Return what nobody looks after, and which letters have no body, at each of two looks."""
    # Read after the claims: a worker has its entry before it has a claim.
    workers = reading.worker_entries(store)
    claims = [each for each in keys.claims if each.owner not in workers]
    parked = walk.unowned(store, keys.parked)
    if claims or parked or bodiless:
        # A worker may have left meanwhile, and its claims with it; a letter may have been released.
        time.sleep(_BETWEEN_LOOKS_S)
        claims = walk.existing(store, claims)
        parked = walk.unowned(store, parked)
        bodiless = walk.listed_letters(store, bodiless)
    files = walk.files_without_holder(store, reading.now_ms(store) - RESERVED_FOR_MS)
    return Lost(claims, parked, files), bodiless


def _finding(
    name: str, which: Sequence[str], meaning: str, *, harmless: bool = False, repaired: int = 0
) -> Finding:
    examples = tuple(each for each in which[:_EXAMPLES] if each)
    return Finding(name, len(which), examples, meaning, harmless, repaired)
