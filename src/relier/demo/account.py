"""The closing account: from Redis, from the results, from the files, from the tasks' own journal.

Four witnesses that do not know of each other: if they agree that every order was printed and booked
once, it was.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from celery import states

from relier.demo import orders, pdf
from relier.demo.journal import BEGUN, DONE, Journal
from relier.demo.orders import Order
from relier.demo.surroundings import Surroundings
from relier.ops.events import Event
from relier.tasks.receipt import Receipt


@dataclass(frozen=True, slots=True)
class Recovery:
    """One invoice that a killed process had in hand.

    Args:
        killed: "worker" or "pool process".
        after_s: from the kill to the first line of the task's next run, by the machine's own
            monotonic clock; None when it never ran again.
    """

    invoice: str
    killed: str
    after_s: float | None


@dataclass(frozen=True, slots=True)
class Account:
    """What became of every accepted task.

    Args:
        orders: accepted orders; each is two tasks.
        accepted: tasks.
        completed: tasks whose result is stored as a success.
        runs: how often a task's body was begun, by the tasks' own journal.
        resurrected: how often one came back from a dead process.
        lost: tasks without a result, or invoices without their file or their booking.
        committed_twice: tasks with more than one commit in Redis's events.
        left_over: messages that are still somewhere in Redis.
    """

    orders: int
    accepted: int
    completed: int
    runs: int
    resurrected: int
    recoveries: tuple[Recovery, ...]
    lost: tuple[str, ...]
    committed_twice: tuple[str, ...]
    left_over: int
    ordered_cents: int
    booked_cents: int
    folder: str
    took_s: float

    @property
    def clean(self) -> bool:
        """Return whether nothing was lost or doubled and every kill was survived."""
        return (
            not (self.lost or self.committed_twice or self.left_over)
            and self.completed == self.accepted
            and self.booked_cents == self.ordered_cents
            and bool(self.recoveries)
            and all(recovery.after_s is not None for recovery in self.recoveries)
        )


def draw_up(
    placed: Sequence[Order],
    receipts: dict[str, tuple[Receipt, Receipt]],
    events: Sequence[Event],
    recoveries: Sequence[Recovery],
    place: Surroundings,
    *,
    left_over: int,
    took_s: float,
) -> Account:
    """Ask every witness.

    Args:
        placed: the accepted orders.
        receipts: of each invoice's two tasks.
        events: every event of the run.
        recoveries: what was killed, and when it ran again.
    """
    named = {
        receipt.id: f"{invoice} ({part})"
        for invoice, pair in receipts.items()
        for receipt, part in zip(pair, ("rendering", "booking"), strict=True)
    }
    succeeded = {r.id for pair in receipts.values() for r in pair if r.status == states.SUCCESS}
    entries = Journal(place.journal).entries()
    done = {entry.task_id for entry in entries if entry.step == DONE}
    booked = _booked(place)
    lost = [name for task_id, name in named.items() if task_id not in succeeded & done]
    lost += [f"{order['invoice']} (file)" for order in placed if not _printed(order, place)]
    lost += [f"{o['invoice']} (books)" for o in placed if o["invoice"] not in booked]
    commits = Counter(event.task_id for event in events if _commits(event))
    return Account(
        orders=len(placed),
        accepted=len(named),
        completed=len(succeeded),
        runs=sum(entry.step == BEGUN for entry in entries),
        resurrected=sum(event.recovery for event in events),
        recoveries=tuple(recoveries),
        lost=tuple(lost),
        committed_twice=tuple(named.get(t, t) for t, count in commits.items() if count > 1),
        left_over=left_over,
        ordered_cents=sum(map(orders.total_cents, placed)),
        booked_cents=sum(booked.values()),
        folder=str(place.folder),
        took_s=round(took_s, 1),
    )


def _commits(event: Event) -> bool:
    """Return whether an event is a commit; one with nothing to send ends in the same step."""
    return event.kind == "committed" or (event.kind == "ended" and event.detail == states.SUCCESS)


def _printed(order: Order, place: Surroundings) -> bool:
    path = place.invoices / f"{order['invoice']}.pdf"
    return path.exists() and pdf.whole(path.read_bytes())


def _booked(place: Surroundings) -> dict[str, int]:
    found = {}
    for path in sorted(place.books.glob("*.json")):
        entry = json.loads(path.read_text())
        found[str(entry["invoice"])] = int(entry["cents"])
    return found
