"""Which task may be meant by an id that nobody knows."""

from __future__ import annotations

from relier.ops import fleet
from relier.store import fleet as store_fleet
from relier.store import reading
from relier.store.client import Store

_MOST_QUEUES = 50
_EVENTS_LOOKED_AT = 5_000
_LETTERS_LOOKED_AT = 1_000
_MOST = 3


def known_ids(store: Store) -> list[str]:
    """Return ids of tasks that run, that something happened to of late, or that are dead."""
    queues = store_fleet.known_queues(store)[:_MOST_QUEUES]
    found = dict.fromkeys(each.task_id for each in fleet.claims(store, fleet.workers(store)))
    for queue in queues:
        count = max(_EVENTS_LOOKED_AT // len(queues), 1)
        for event in reading.events_before(store, queue, count=count):
            found[event.fields.get("i", "")] = None
        most = max(_LETTERS_LOOKED_AT // len(queues), 1)
        found |= dict.fromkeys(letter_id for letter_id, _ in reading.dead(store, queue, most))
    found.pop("", None)
    return list(found)


def beginning(task_id: str, known: list[str]) -> list[str]:
    """Return up to three ids that begin so: views of a narrow terminal show no more of one."""
    return [each for each in known if task_id and each.startswith(task_id)][:_MOST]
