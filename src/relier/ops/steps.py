"""How the moves of a task read: one sentence each."""

from __future__ import annotations

from collections.abc import Callable

from relier.ops.events import Event

_CAME_BACK = ("requeued", "handed", "disowned", "replay")
_SHORT_ID = 8


def said(event: Event, before: Event | None = None) -> str:
    """Return what happened.

    Args:
        before: the move before it, batches claimed left out: who starts what came back reclaims it.
    """
    write = _SENTENCES.get(event.kind)
    if write is None:
        return " ".join(filter(None, (event.kind, event.detail)))
    if event.kind == "started" and before is not None and _came_back(before):
        return f"reclaimed by {who(event)}{_run(event)}"
    return write(event)


def who(event: Event) -> str:
    """Return the worker's name, or the beginning of its id when nobody remembers it."""
    return event.worker_name or event.worker[:_SHORT_ID]


def _came_back(event: Event) -> bool:
    return event.kind in _CAME_BACK or event.recovery


def _run(event: Event) -> str:
    fence = f"fence {event.fence}" if event.fence else ""
    attempt = f"attempt {event.attempt}" if event.attempt else ""
    known = ", ".join(filter(None, (fence, attempt)))
    return f" ({known})" if known else ""


def _started(event: Event) -> str:
    why = {
        "cached": ", to commit what an equal call had returned",
        "revoked": ", to commit that it was revoked",
        "expired": ", to commit that it had expired",
    }.get(event.detail, "")
    return f"started in {who(event)}{_run(event)}{why}"


def _scheduled(event: Event) -> str:
    return f"{_died(event)}: runs again after a pause" if event.worker else "scheduled"


def _ended(event: Event) -> str:
    if not event.detail:
        return "finished: all that follows from it was sent"
    if event.detail.isupper():
        return f"finished: {event.detail}"
    return f"ended without a run: {event.detail}"


def _died(event: Event) -> str:
    """Return who died of what."""
    reason = event.detail
    if reason.startswith("process died"):
        return reason.replace("process died", f"its process in {who(event)} died", 1)
    if reason.startswith(("connection lost", "silen")):
        return f"{who(event)} dead ({reason})"
    return f"taken back from {who(event)} ({reason})"


def _why(event: Event) -> str:
    return f" ({event.detail})" if event.detail else ""


_SENTENCES: dict[str, Callable[[Event], str]] = {
    "accepted": lambda _: "accepted",
    "scheduled": _scheduled,
    "claimed": lambda e: f"claimed by {who(e)}",
    "started": _started,
    "parked": lambda _: "waits: an equal call runs",
    "committed": lambda e: f"committed: {e.detail}",
    "ended": _ended,
    "next": lambda _: "published its next generation",
    "continued": lambda _: "goes on elsewhere under its id",
    "returned": lambda e: f"given back by {who(e)} unstarted{_why(e)}",
    "handed": lambda e: f"handed over by {who(e)}{_why(e)}",
    "disowned": lambda e: f"given back by {who(e)}{_why(e)}",
    "requeued": lambda e: f"{_died(e)}: back in its queue",
    "replay": lambda e: f"{_died(e)}: what follows from it is to be sent again",
    "exhausted": lambda e: f"{_died(e)}: once too often, given up",
    "condemned": lambda e: f"stopped in {who(e)}{_why(e)}",
    "overtime": lambda e: f"ran over its soft timeout{_why(e)}",
    "deferred": lambda e: f"put off by {who(e)}{_why(e)}",
    "cancelled": lambda _: "asked not to run",
    "hastened": lambda _: "made due at once",
    "duplicate": lambda _: "a copy was dropped",
    "revoked": lambda _: "revoked before it began",
    "dead": lambda e: f"became a dead letter{_why(e)}",
    "released": lambda _: "released from the dead letters",
    "removed": lambda _: "removed from the dead letters",
    "omitted": lambda e: f"{e.detail} moves are left out",
}
