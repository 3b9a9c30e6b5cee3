"""The world around the scripts, as data: processes, bytes on the wire, and what may go wrong."""

from __future__ import annotations

from typing import Any, NamedTuple

from model import laws
from model.laws import Ledger
from model.model import hello
from model.rules import RIGHT
from model.state import Message, Outcome, Redis

UP, PAUSED, GONE, OUT = "up", "paused", "gone", "out"
"""A worker process; OUT: it was told that its entry is gone, and claims no more."""

HELD, ASKING, RUNNING, DECIDED, SENDING = "held", "asking", "running", "decided", "sending"
UNSENT, ORPHAN, OVERDUE, STOPPED = "unsent", "orphan", "overdue", "stopped"
"""What a process knows of a claim. ASKING: user code says its idempotency key. UNSENT: a send
failed. ORPHAN: its child died. OVERDUE: main killed the child at the hard timeout. STOPPED: main
stopped it to hand the task over."""


class Holding(NamedTuple):
    """A claim as the worker process sees it."""

    number: int
    message: Message
    stage: str = HELD
    root: str = ""
    generation: int = 0
    outcome: Outcome | None = None
    sent: int = 0
    saves: int = 0


class Process(NamedTuple):
    """A worker process; ``lost``: its connection broke, it must reconcile before it claims."""

    worker: int
    status: str = UP
    epoch: int = 1
    lost: bool = False
    held: tuple[Holding, ...] = ()

    def put(self, holding: Holding) -> Process:
        """Return the process with a holding written."""
        others = [h for h in self.held if h.number != holding.number]
        return self._replace(held=tuple(sorted([*others, holding], key=lambda h: h.number)))

    def drop(self, number: int) -> Process:
        """Return the process with a holding forgotten."""
        return self._replace(held=tuple(h for h in self.held if h.number != number))


class Packet(NamedTuple):
    """The bytes of one call."""

    script: str
    args: tuple[Any, ...]

    def __str__(self) -> str:
        words = [str(a) for a in self.args if not isinstance(a, Outcome)]
        return f"{self.script}({', '.join(words)})"


class State(NamedTuple):
    """Everything. ``publishes``: 0 not begun, 1 begun and not answered, 2 answered."""

    redis: Redis
    processes: tuple[Process, ...]
    publishes: tuple[int, ...]
    faults: int
    net: tuple[Packet, ...] = ()
    ledger: Ledger = Ledger()

    def put(self, process: Process) -> State:
        """Return the state with a process written."""
        others = [p for p in self.processes if p.worker != process.worker]
        return self._replace(processes=tuple(sorted([*others, process], key=lambda p: p.worker)))

    def fault(self) -> State:
        """Return the state with one fault fewer left."""
        return self._replace(faults=self.faults - 1)

    def send(self, packet: Packet) -> State:
        """Return the state with bytes on the wire."""
        return self._replace(net=tuple(sorted((*self.net, packet), key=repr)))

    def publish(self, i: int, status: int) -> State:
        """Return the state with one publish further on."""
        publishes = list(self.publishes)
        publishes[i] = status
        return self._replace(publishes=tuple(publishes))


class World(NamedTuple):
    """What can happen.

    Args:
        name: for reports.
        publishes: what the producer dispatches, in this order; a second publish of an id is a
            duplicate or a redispatch, whenever it arrives.
        bodies: how bodies of generation 0 may end (ok, bare, fail, retry, replace); those of later
            generations end "ok".
        faults: how many faults, of which ``kinds``: crash, pause, cut, child, timeout, unsent,
            copy, purge, reconcile, revive, remove, release, handover, discard, goodbye,
            impatience.
        workers: processes.
        saves: checkpoints that each execution may save.
        asks: user code says the idempotency keys.
        room: claims per process.
        stock: tokens that a stock producer publishes (no record).
        unreadable: tokens of messages that cannot be decoded.
        audit: check too that every call may be repeated and that stale calls change nothing.
    """

    name: str
    publishes: tuple[Message, ...]
    bodies: tuple[str, ...] = ("ok",)
    faults: int = 1
    kinds: frozenset[str] = frozenset()
    workers: int = 1
    room: int = 1
    saves: int = 0
    asks: bool = False
    stock: frozenset[str] = frozenset()
    unreadable: frozenset[str] = frozenset()
    audit: bool = False

    def first_state(self) -> State:
        """Return the state in which every worker has said hello and nothing was published."""
        redis, numbers = Redis(), range(1, self.workers + 1)
        for worker in numbers:
            redis = hello(redis, RIGHT, worker).redis
        processes = tuple(Process(worker) for worker in numbers)
        return State(redis, processes, (0,) * len(self.publishes), self.faults)


def broken(s: State) -> str:
    """Return the law that a state breaks, or ""."""
    if s.ledger.broken:
        return s.ledger.broken
    for p in s.processes:
        if p.status == GONE or not s.redis.alive(p.worker):
            continue
        for h in p.held:
            if h.stage == RUNNING and s.redis.claim(p.worker, h.number) is None:
                return f"LAW1 {h.message} runs in {p.worker}, which lives, without a claim"
    return laws.check(s.redis, s.ledger)
