"""Put right what `rl verify` found, through the scripts that the fleet itself uses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from relier.store import fleet, reading
from relier.store.broker import Broker
from relier.store.reading import walk
from relier.store.reading.walk import Owned
from relier.store.reaping import Suspect, reap, sweep
from relier.store.sweeping import sweep as sweep_files

_REASON = "its worker has no entry"
_MOST_BATCHES = 1000


@dataclass(frozen=True, slots=True)
class Lost:
    """What nobody looks after.

    Args:
        claims: of workers that have no entry, ``owner`` being the worker.
        parked: lists behind idempotency keys that nobody owns.
        files: names of checkpoint files that no checkpoint refers to.
    """

    claims: Sequence[Owned] = field(default=())
    parked: Sequence[Owned] = field(default=())
    files: Sequence[str] = field(default=())


def repair(broker: Broker, lost: Lost) -> Lost:
    """Put it right; return what is right now."""
    gone = {each.owner for each in lost.claims if _bring_back(broker, each.owner)}
    return Lost(
        [each for each in lost.claims if each.owner in gone],
        [each for each in lost.parked if _wake(broker, each)],
        _remove(broker, lost.files),
    )


def _bring_back(broker: Broker, worker: str) -> bool:
    store = broker.store
    for _ in range(_MOST_BATCHES):
        suspect = Suspect(worker, "", "")
        queues = fleet.known_queues(store)
        done = store.run(reap(broker.keys, suspect, queues, _REASON, broker.reap_rules))
        if done.status != "more":
            return done.status == "done"
    return False


def _wake(broker: Broker, parked: Owned) -> bool:
    key = broker.keys.idempotency(parked.owner)
    queues = sorted({*fleet.known_queues(broker.store), parked.queue})
    for _ in range(_MOST_BATCHES):
        said = broker.store.run(sweep(broker.keys, key, queues))
        if said != "more":
            return said == "done"
    return False


def _remove(broker: Broker, names: Sequence[str]) -> list[str]:
    files = broker.checkpoint_files
    if files is None or not names:
        return []
    sweep_files(broker.store, files)
    left = set(walk.files_without_holder(broker.store, reading.now_ms(broker.store)))
    return [name for name in names if name not in left]
