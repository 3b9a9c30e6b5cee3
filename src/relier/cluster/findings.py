"""What a supervisor says of what has ended."""

from __future__ import annotations

import signal

from relier.errors import RelierError
from relier.ops import fleet
from relier.store.client import Store


def how_ended(status: int) -> str:
    """Return an exit status in words; a negative one is a signal's."""
    if status < 0:
        return f"was ended by {signal.Signals(-status).name}"
    return f"ended with status {status}"


def kept_tasks(store: Store) -> dict[str, int] | None:
    """Return how many tasks a server holds, by place; None when it does not answer."""
    try:
        held = fleet.claims(store, fleet.workers(store))
        queues = fleet.queues(store, held)
    except RelierError:
        return None  # it is gone already; its data is not
    return {
        "queued": sum(each.waiting + each.replay for each in queues),
        "scheduled": sum(each.scheduled for each in queues),
        "claimed": sum(each.claimed for each in queues),
        "dead": sum(each.dead for each in queues),
    }
