"""The scripts by hand: a worker called w, and a call with an idempotency key."""

from __future__ import annotations

from typing import Any

from relier.protocol.identity import Claim, Identity
from relier.store import claiming, publishing, reaping, running
from relier.store.client import Store
from relier.store.keys import Keys
from relier.store.operations import Operation
from relier.store.publishing import Outgoing
from relier.store.running import Started

KEYS, KEY = Keys(), "pay:1"
HOUR_MS = 3_600_000


class Bench:
    """One server's scripts, and a worker called w."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.redis: Any = store.redis
        self.hello("w")

    def hello(self, worker: str) -> None:
        self.store.run(claiming.hello(KEYS, worker, {"epoch": 1}))

    def push(self, task: str, queue: str) -> None:
        out = Outgoing(task, f"t-{task}", 0, "", 0, "name", f"raw {task}")
        self.store.run(publishing.enqueue(KEYS, queue, [out]))

    def claim(self, queue: str) -> Claim:
        harvest = self.store.run_once(claiming.claim(KEYS, "w", 1, [queue], 1, [""]))
        return harvest.claimed[0].claim

    def start(self, claim: Claim, task: str, key: str = KEY) -> Started:
        return self.store.run(self.start_operation(claim, task, key))

    def start_operation(
        self, claim: Claim, task: str, key: str, *, token: str = "", generation: int = 0
    ) -> Operation[Started]:
        who = Identity(task, token or f"t-{task}", generation, "name")
        return running.start(
            KEYS, claim, who, own_limit=None, max_resurrections=5, idempotency_key=key
        )

    def begin(self, task: str, queue: str, key: str = KEY) -> Claim:
        self.push(task, queue)
        claim = self.claim(queue)
        assert self.start(claim, task, key).verdict == "run"
        return claim

    def duplicate(self, task: str, queue: str) -> None:
        self.push(task, queue)
        assert self.start(self.claim(queue), task).verdict == "parked"

    def sweep(self, *queues: str) -> bool:
        return self.store.run(reaping.sweep(KEYS, KEYS.idempotency(KEY), queues)) == "done"
