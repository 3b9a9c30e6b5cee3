"""Looks at the fleet: who is there, how its deaths are noticed, what nobody takes care of."""

from __future__ import annotations

from collections.abc import Iterator

from relier.ops import fleet
from relier.ops.doctor.checks import OK, WARNING, Check, some
from relier.ops.fleet import Worker
from relier.store import reading
from relier.store.broker import Broker
from relier.store.fleet import known_queues
from relier.store.reading import health

_SEARCH_S = 0.3
_LATE_MS = 10_000


def workers(broker: Broker) -> Check:
    """Look who is there to run anything."""
    members = fleet.workers(broker.store)
    if not members:
        return Check(
            "workers",
            WARNING,
            "none: what is dispatched waits",
            "start one: `rl worker start -A yourapp`",
        )
    return Check("workers", OK, f"{len(members)}: {some(member.name for member in members)}")


def liveness(broker: Broker) -> Check:
    """Look whether the server can tell that a connection has ended: the quick way to notice death.

    Behind a proxy that shares its connections it cannot.
    """
    ttl_s = broker.settings.heartbeat_ttl_s
    slow = f"a dead worker is noticed by its silence, after {ttl_s:g} s, and not within about one"
    listed = health.lists_itself(broker.store)
    if listed is None:
        fix = "allow the user CLIENT LIST (`+client|list`)"
        return Check("death notice", WARNING, f"CLIENT LIST is forbidden: {slow}", fix)
    if not listed:
        return Check(
            "death notice",
            WARNING,
            f"the server does not list this connection, so a proxy is in between: {slow}",
            "let the workers connect to Redis itself, or lower RELIER_HEARTBEAT_TTL",
        )
    hidden = sorted(
        entry.get("name") or worker_id
        for worker_id, entry in reading.worker_entries(broker.store).items()
        if "beat" in entry and not entry.get("client_id")
    )
    if hidden:
        found = f"the server does not see the connections of {len(hidden)} workers: {some(hidden)}"
        fix = "they run behind a proxy, or as a user who may not use CLIENT LIST: let them connect "
        return Check("death notice", WARNING, f"{found}; {slow}", f"{fix}to Redis itself")
    return Check("death notice", OK, "the server tells when a worker's connection ends")


def orphans(broker: Broker) -> Check:
    """Look for claims whose worker has no entry any more: nobody would bring them back."""
    found = health.unowned_claims(broker.store, _SEARCH_S)
    looked = "no claim without its worker" + ("" if found.whole else f" ({found.seen:,} keys seen)")
    if not found.claims:
        return Check("orphaned claims", OK, looked)
    count = sum(each.messages for each in found.claims)
    where = some(f"{each.messages} of {each.queue} held by {each.worker}" for each in found.claims)
    return Check(
        "orphaned claims",
        WARNING,
        f"{count} tasks are held by workers that have no entry: {where}",
        "somebody deleted the workers' keys; `rl verify --repair` gives what they held back",
    )


def backlog(broker: Broker) -> Iterator[Check]:
    """Look for messages that nobody takes: overdue ones, and queues without a worker."""
    store = broker.store
    queues = known_queues(store)
    now_ms = reading.now_ms(store)
    late = health.overdue(store, queues, now_ms - _LATE_MS)
    depths = reading.depths(store, queues)
    consumed = _consumed(fleet.workers(store), queues)
    sound = True
    for queue in queues:
        waiting, overdue = depths[queue].waiting, late[queue].messages
        if depths[queue].paused and (waiting or overdue):
            found = f"{queue} is paused: {waiting:,} wait, {overdue:,} more are overdue"
            fix = f"resume it when it may go on: `rl queue resume {queue}`"
        elif queue not in consumed and (waiting or overdue):
            found = f"no worker takes from {queue}: {waiting:,} wait, {overdue:,} more are overdue"
            fix = f"start one: `rl worker start -A yourapp -Q {queue}`"
        elif overdue:
            behind_s = (now_ms - late[queue].oldest_ms) / 1000
            found = f"{overdue:,} of {queue} are overdue, the oldest for {behind_s:,.0f} s"
            fix = "its workers are too few, or all busy: start more"
        else:
            continue
        sound = False
        yield Check("backlog", WARNING, found, fix)
    if sound:
        yield Check("backlog", OK, "nothing is overdue, and every queue with tasks has workers")


def _consumed(members: tuple[Worker, ...], queues: list[str]) -> set[str]:
    living = [member for member in members if not member.dying]
    return {queue for member in living for queue in member.queues or queues}


def shutdown(broker: Broker) -> Iterator[Check]:
    """Compare how long workers take to stop with how long they are given, where that is known."""
    own = broker.settings
    known = [("here", own.graceful_shutdown_timeout_s, own.termination_grace_period_s)]
    known += [(w.name, w.grace_s, w.killed_after_s) for w in fleet.workers(broker.store)]
    given = [(name, takes_s, has_s) for name, takes_s, has_s in known if has_s is not None]
    late = [each for each in given if each[1] > each[2]]
    if not given:
        return
    if not late:
        yield Check("shutdown", OK, "every worker has the time it takes to stop")
        return
    name, takes_s, has_s = late[0]
    more = f", and {len(late) - 1} more" if len(late) > 1 else ""
    yield Check(
        "shutdown",
        WARNING,
        f"killed {has_s:g} s after SIGTERM, but may take {takes_s:g} s to stop ({name}{more})",
        "raise terminationGracePeriodSeconds (and RELIER_TERMINATION_GRACE_PERIOD), or lower "
        "RELIER_GRACEFUL_SHUTDOWN_TIMEOUT: what is cut off is charged an interruption",
    )
