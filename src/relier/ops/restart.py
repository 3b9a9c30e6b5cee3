"""Have workers drain and start again, one after the other."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from relier.ops import fleet
from relier.ops.drain import Draining, Fate, Outcome
from relier.ops.fleet import Worker
from relier.store.client import Store

_EVERY_S = 0.1

CAN = "yes"


@dataclass(slots=True)
class Restarted:
    """What became of one worker.

    Args:
        name: its node name.
        drained: the account of what it held.
        came_back_as: its id now; "" when it has not come back in time.
        took_s: from the order until it was a member again.
    """

    name: str
    drained: Outcome
    came_back_as: str = ""
    took_s: float = 0.0

    @property
    def done(self) -> bool:
        """Return whether it accounted for every task, and is back."""
        return self.drained.clean and bool(self.came_back_as)


class Restarting:
    """A worker that was ordered to drain and to start again.

    Args:
        store: the server.
        member: the worker; see ``cannot``.
        grace_s: how long running tasks may take; None is the worker's own setting.
    """

    def __init__(self, store: Store, member: Worker, grace_s: float | None) -> None:
        self._store = store
        self._member = member
        self._before = {each.worker_id for each in fleet.workers(store)}
        self._draining = Draining(store, [member], grace_s, restart=True)
        self.outcome = Restarted(member.name, self._draining.outcome)

    def follow(self, drain_s: float, start_s: float) -> Iterator[Fate]:
        """Yield each task's fate as it comes, until the worker is back or the time is up."""
        began_s = time.monotonic()
        yield from self._draining.follow(drain_s)
        until_s = time.monotonic() + start_s
        while not self.outcome.came_back_as and time.monotonic() < until_s:
            self.outcome.came_back_as = self._found()
            time.sleep(_EVERY_S)
        self.outcome.took_s = time.monotonic() - began_s

    def _found(self) -> str:
        """Return the id of the same process as a new member, or ""."""
        mine = self._member
        for each in fleet.workers(self._store):
            same = (each.host, each.pid, each.name) == (mine.host, mine.pid, mine.name)
            if same and each.worker_id not in self._before:
                return each.worker_id
        return ""


def cannot(member: Worker) -> str:
    """Return why a worker cannot start itself again, or ""."""
    if member.restarts == CAN:
        return ""
    return member.restarts or "its relier does not know how"
