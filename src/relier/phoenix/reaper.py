"""Bring back what a dead worker held."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from relier.errors import ConfigurationError
from relier.phoenix.detector import Verdict
from relier.store.broker import Broker
from relier.store.client import Store
from relier.store.fleet import known_queues, parked_keys
from relier.store.reaping import Suspect, reap, sweep

logger = logging.getLogger(__name__)

_MOST_SCRIPTS = 100
_MOST_PARKED_KEYS = 100
_MOST_WAKES = 100


def wake_parked(store: Store, broker: Broker) -> None:
    """Wake duplicates whose idempotency key nobody owns.

    Whatever ends the owner's claim does so in the same step; this is the net below it.

    Raises:
        ConfigurationError: a key is of another type; those behind the others were woken.
    """
    found = parked_keys(store, _MOST_PARKED_KEYS)
    queues = known_queues(store) if found else []
    failed: ConfigurationError | None = None
    for key in found:
        try:
            wake_all(store, broker, key, queues)
        except ConfigurationError as error:
            failed = failed or error
    if failed:
        raise failed


def wake_all(store: Store, broker: Broker, key: str, queues: Sequence[str] = ()) -> None:
    """Wake the duplicates behind one key, as many in one call as Redis can move at once.

    Args:
        key: its full name.
        queues: see ``reaping.sweep``.
    """
    for _ in range(_MOST_WAKES):
        if store.run(sweep(broker.keys, key, queues)) != "more":
            return


def bring_back(store: Store, broker: Broker, verdict: Verdict) -> None:
    """Reap one dead worker, script by script, until it holds nothing or a batch was moved.

    Returns early when it lives after all, or when a queue is too deep to take more; the next look
    goes on from there.
    """
    left = broker.reap_rules.batch_size
    suspect = Suspect(verdict.worker, verdict.sighting.beat, verdict.sighting.client_id)
    for _ in range(_MOST_SCRIPTS):
        queues = known_queues(store)
        rules = broker.reap_rules._replace(batch_size=left)
        done = store.run(reap(broker.keys, suspect, queues, verdict.reason, rules))
        moved = done.unstarted + done.replayed + done.resurrected + done.exhausted
        left -= moved
        if moved:
            logger.warning(
                "worker %s is dead (%s): %d tasks resurrected, %d had not started, %d replayed, "
                "%d dead letters",
                verdict.worker,
                verdict.reason,
                done.resurrected,
                done.unstarted,
                done.replayed,
                done.exhausted,
            )
        if done.status == "stuck":
            logger.error(
                "worker %s is dead, but a key of a queue that it took from is not what it should "
                "be; its claims of that queue wait until the key is removed",
                verdict.worker,
            )
        if done.status == "held back":
            logger.warning("a queue is too deep to take resurrected tasks; waiting")
        if done.status != "more" or left <= 0:
            return
