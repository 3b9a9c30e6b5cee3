"""The worlds that are explored completely: small, and together every move with every other."""

from __future__ import annotations

from model.state import Message
from model.world import World

A = Message("a", 0, "t0")
B = Message("b", 0, "t1")
ONE, SAME = Message("i", 0, "t0"), Message("j", 0, "t1")
"""Calls with one idempotency key."""
AGAIN = Message("a", 0, "t2")
"""The id of A once more: a duplicate, or a redispatch after its end."""


def kinds(words: str) -> frozenset[str]:
    """Return a set of kinds of faults."""
    return frozenset(words.split())


ALL = kinds(
    "crash pause cut child timeout unsent copy purge reconcile revive release handover discard"
    " goodbye"
)

WORLDS = (
    World("one task, any two faults", (A,), ("ok", "retry"), 2, ALL, audit=True),
    World("one task, any fault, two workers", (A,), ("ok", "retry", "bare"), 1, ALL, workers=2),
    World("duplicate or redispatch", (A, AGAIN), ("ok", "retry"), 1, ALL, workers=2, audit=True),
    World("duplicate, two faults", (A, AGAIN), ("ok", "retry"), 2, kinds("copy cut purge crash")),
    World("replaced by a chord", (A, AGAIN), ("replace",), 1, ALL, workers=2),
    World("dead and revived", (A, AGAIN), ("fail",), 2, kinds("revive remove crash cut copy")),
    World("neighbours", (A, B), ("ok",), 2, kinds("crash pause child cut"), room=2),
    World("one key", (ONE, SAME), ("ok", "fail"), 1, ALL, workers=2),
    World(
        "one key, two faults", (ONE, SAME), ("bare", "retry"), 2, kinds("crash child cut timeout")
    ),
    World(
        "one key, said by user code",
        (ONE, SAME),
        ("bare", "fail"),
        1,
        kinds("crash pause cut child timeout release handover reconcile"),
        workers=2,
        asks=True,
        audit=True,
    ),
    World("suspects", (A, B), ("bare",), 2, kinds("crash impatience"), workers=2, room=2),
    World("two workers, two tasks", (A, B), ("ok",), 1, ALL, workers=2),
    World("poison", (A,), ("ok",), 4, kinds("child crash timeout")),
    World(
        "checkpoints",
        (A,),
        ("ok", "retry", "fail", "replace"),
        1,
        kinds("crash pause cut child timeout release handover discard"),
        workers=2,
        saves=1,
        audit=True,
    ),
    World("checkpoints out of order", (A,), ("ok",), 2, kinds("cut crash child"), saves=2),
    World(
        "checkpoints of the dead",
        (A, AGAIN),
        ("fail",),
        2,
        kinds("revive remove crash cut"),
        saves=1,
    ),
    World(
        "stock producer",
        (A, AGAIN),
        ("ok", "retry"),
        1,
        kinds("copy purge crash cut"),
        workers=2,
        stock=frozenset({"t2"}),
    ),
    World(
        "unreadable",
        (A, B),
        ("ok",),
        2,
        kinds("copy crash cut revive"),
        unreadable=frozenset({"t0"}),
    ),
)
