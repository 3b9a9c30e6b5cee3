"""A worker process's place in the fleet: its id, its epoch, and what it holds.

Held claims belong to the process, never to a channel: a channel dies with its connection, while the
claims stay in Redis under this process's id until they are ended, given back or reaped.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import celery

from relier.errors import RedisConnectionError
from relier.protocol.identity import Claim, mint_worker_id
from relier.protocol.outcome import printable
from relier.store import claiming, running
from relier.store.broker import Broker
from relier.store.claiming import Ended, Returned, Unread
from relier.store.operations import Argument, Operation
from relier.version import __version__
from relier.worker.alarms import Alarms
from relier.worker.beat import Beat
from relier.worker.comparison import Comparison
from relier.worker.debts import Debts

logger = logging.getLogger(__name__)

_SHUN_S = 5.0


class Held(NamedTuple):
    """One message in this process's hands.

    Args:
        claim: its claim.
        delivery_tag: the message's own tag, from before the claim's took its place.
        outcome: the saved outcome, when only its consequences are to be sent.
        replays: how often that was tried by processes that died.
        who: the task and the token of its publish.
    """

    claim: Claim
    delivery_tag: str
    outcome: bytes | None
    replays: int
    who: Unread


class Membership:
    """This process as a member of the fleet.

    Args:
        broker: the broker it takes messages from.
    """

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.worker_id = ""
        self.epoch = 0
        self.queues: set[str] = set()
        self.held: dict[str, Held] = {}
        self.wakes = Alarms()  # at the moments when something scheduled is due
        # A request is referred to for as long as any pool may still run it, and no longer.
        self.requests: WeakValueDictionary[Claim, Any] = WeakValueDictionary()
        self.debts = Debts(broker)
        self.comparison = Comparison(self)
        self.concurrency = 1
        self.pool = "none"
        self.name = ""
        self.restarts = ""
        self.reply_lost = False
        self.draining = False
        self.on_drain: Callable[[str], None] | None = None
        self.on_stop: Callable[[Collection[str]], None] | None = None
        self.stopped: set[str] = set()  # by order; until the server was told
        self._ended: dict[str, list[Ended]] = {}  # until the server was told
        self._shunned: dict[str, float] = {}
        self._lock = threading.RLock()
        self._beat: Beat | None = None
        self._pid = 0

    def __repr__(self) -> str:
        # Constant: kombu keys its connection pools by the text of the transport options. What is
        # published through one is asked its limits and signed by its keys, so apps with others
        # have other pools.
        broker = self.broker
        return f"<Membership of {broker.address.public}, {broker.admission}, {broker.keyring!r}>"

    def __json__(self) -> str:
        # `celery inspect stats` sends the transport options to whoever asks.
        return repr(self)

    @property
    def joined(self) -> bool:
        """Return whether this very process (not its parent) has an entry."""
        return bool(self.worker_id) and self._pid == os.getpid()

    def join(self) -> None:
        """Make an entry for this process and start its beat, once.

        Raises:
            RedisConnectionError: the server is away.
        """
        with self._lock:
            if self.joined:
                return
            self._pid = os.getpid()
            self.draining = False  # an earlier worker of this program may have drained
            self.held.clear()
            self._ended.clear()
            self._enter()
            self._beat = Beat(self)
            self._beat.start()

    def rejoin(self, refused: str) -> None:
        """Go on under a new id, because ``refused`` was given up for dead.

        Its claims are other workers' now, and the scripts refuse whatever is still done under
        them: the process that tries says so, once for each task.
        """
        with self._lock:
            if not self.joined or self.worker_id != refused:
                return
            lost = len(self.held)
            self.held.clear()
            self._ended.clear()
            self._enter()
            logger.warning(
                "worker %s was away too long and given up for dead; its %d claims are other "
                "workers' now; going on as %s",
                refused,
                lost,
                self.worker_id,
            )

    def _enter(self) -> None:
        worker_id = mint_worker_id()
        self.broker.store.run(
            claiming.hello(self.broker.keys, worker_id, {"epoch": 1, **self._facts()})
        )
        self.worker_id, self.epoch = worker_id, 1

    def _facts(self) -> dict[str, Argument]:
        settings = self.broker.settings
        known = settings.termination_grace_period_s
        return {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "pool": self.pool,
            "name": self.name or f"{os.path.basename(sys.argv[0] or 'python')}",
            "size": self.concurrency,
            "relier": __version__,
            "celery": celery.__version__,
            "restarts": self.restarts,
            "stops": 1,
            "hb": int(settings.heartbeat_ttl_s * 1000),
            "grace": int(settings.graceful_shutdown_timeout_s * 1000),
            "killed_after": "" if known is None else int(known * 1000),
        }

    # -- what this process holds

    def hold(self, tag: str, held: Held) -> None:
        """Remember a delivered claim."""
        self.held[tag] = held

    def living_requests(self) -> list[Any]:
        """Return the requests that some pool may still run; safe to call from any thread."""
        # valuerefs copies in one step; iterating would meet the main thread's additions.
        found = (reference() for reference in self.requests.valuerefs())
        return [request for request in found if request is not None]

    def free(self, tag: str) -> Held | None:
        """Forget a claim that a pool process has ended, or will end."""
        return self.held.pop(tag, None)

    def end(self, tag: str, reason: str) -> None:
        """End an unstarted claim; it goes to the server with the next claim or beat."""
        held = self.free(tag)
        if held is None or held.claim.worker != self.worker_id:
            return
        with self._lock:
            ended = Ended(held.claim.number, held.who, reason)
            self._ended.setdefault(held.claim.queue, []).append(ended)
        if self._beat:
            self._beat.wake()

    def untold(self) -> list[tuple[Operation[int], Callable[[], None]]]:
        """Return what tells the server of ended claims, and what to call once it knows.

        Until then they count as held: nobody may give back what was acknowledged.
        """
        with self._lock:
            ended = {queue: list(each) for queue, each in self._ended.items() if each}
        keys, worker = self.broker.keys, self.worker_id
        return [
            (claiming.discard(keys, worker, queue, each), partial(self._told, queue, each))
            for queue, each in ended.items()
        ]

    def _told(self, queue: str, ended: list[Ended]) -> None:
        with self._lock:
            rest = [each for each in self._ended.get(queue, ()) if each not in ended]
            self._ended[queue] = rest

    def flush_ended(self) -> None:
        """Tell the server what was ended, now."""
        for operation, told in self.untold():
            self.broker.store.run(operation)
            told()

    def give_back(self, tags: list[str]) -> None:
        """Return unstarted claims to the head of their queues."""
        self.put_back([held for held in map(self.free, tags) if held], "closed")

    def put_back(self, waiting: Iterable[Held], reason: str) -> list[Held]:
        """Return unstarted claims to the head of their queues, and say which went back."""
        begun = self.begun()
        by_queue: dict[str, dict[str, Held]] = {}
        for held in waiting:
            if held.claim.worker == self.worker_id and held.claim not in begun:
                by_queue.setdefault(held.claim.queue, {})[held.claim.number] = held
        returned = []
        for queue, mine in by_queue.items():
            claims = [Returned(number, held.who.task_id) for number, held in mine.items()]
            verdicts = self.broker.store.run(
                claiming.release(self.broker.keys, self.worker_id, queue, claims, reason)
            )
            returned += [mine[number] for number, verdict in verdicts.items() if verdict]
        return returned

    def requeue(self, tag: str) -> None:
        """Return an unstarted claim to the tail of its list: its consumer wants others first."""
        held = self.free(tag)
        if held and held.claim.worker == self.worker_id:
            self.broker.store.run(claiming.requeue(self.broker.keys, held.claim))

    def abandon(
        self, claim: Claim, reason: str, *, replays: int, task_id: str = "", tried: bool = True
    ) -> None:
        """Hand what follows from a committed task to another worker; this one cannot send it.

        For a while it leaves that queue's committed tasks alone: it would be the next to claim
        this one, thousands of times a second, before a busy worker that can send it.

        Args:
            replays: how often it was tried before; after MAX_INTERRUPTIONS it is a dead letter.
            task_id: the task, if it could be read.
            tried: whether this counts; one that another kind of worker can send waits for that.
        """
        logger.error("cannot send what follows from a committed task: %s", reason)
        keys, text = self.broker.keys, printable(reason)
        if tried and replays > self.broker.settings.max_interruptions:
            letter_id = task_id or f"raw-{claim.worker}-{claim.number}"
            letter = {"reason": "consequences", "error": text}
            self.debts.owe(running.ack_dead(keys, claim, letter_id, letter))
            return
        self._shunned[claim.queue] = time.monotonic() + _SHUN_S
        self.debts.owe(running.abandon(keys, claim, "", text, tried=tried))

    def shunned(self) -> set[str]:
        """Return the queues whose committed tasks this worker leaves to others for now."""
        now_s = time.monotonic()
        return {queue for queue, until_s in self._shunned.items() if now_s < until_s}

    def begun(self) -> set[Claim]:
        """Return the claims that a process or thread is known to have begun to work under.

        The server may have forgotten that they started. Their own processes tell it again.
        """
        requests = [(each.key, each()) for each in self.requests.valuerefs()]
        return {claim for claim, request in requests if request is not None and request.begun}

    def in_hand(self) -> set[Claim]:
        """Return the claims that some process or thread here still works under, or will."""
        # valuerefs copies in one step; iterating would meet the main thread's additions.
        return {reference.key for reference in self.requests.valuerefs()}

    # -- epochs

    def new_epoch(self, kept: Collection[str] = ()) -> None:
        """Give back whatever did not start, and make claims that are still under way void.

        Called after any connection error, and when the worker stops claiming: a reply that was
        lost, or that arrives late, belongs to an older epoch.

        Args:
            kept: tags of claims that stay, though they did not start.
        """
        with self._lock:
            if not self.joined:
                return
            self.flush_ended()
            stay = [held.claim.number for tag, held in list(self.held.items()) if tag in kept]
            self._reconcile(self.epoch + 1, stay + self._untold_numbers())
            self.reply_lost = False

    def reconcile(self) -> None:
        """Give back claims that nobody here holds."""
        with self._lock:
            if self.joined:
                held = [held.claim.number for held in list(self.held.values())]
                self._reconcile(self.epoch, held + self._untold_numbers())

    def _untold_numbers(self) -> list[str]:
        return [each.number for ended in self._ended.values() for each in ended]

    def _reconcile(self, epoch: int, held: list[str]) -> None:
        worker = self.worker_id
        held += [claim.number for claim in self.begun()]
        operation = claiming.reconcile(self.broker.keys, worker, epoch, sorted(self.queues), held)
        if self.broker.store.run(operation) < 0:
            self.rejoin(worker)
        else:
            self.epoch = epoch

    def leave(self) -> None:
        """Give everything back and remove the entry, if nothing is running any more."""
        with self._lock:
            if not self.joined:
                return
            try:
                self.debts.pay()
                self.new_epoch()
                self._stop_beat()
                keys, worker = self.broker.keys, self.worker_id
                self.broker.store.run(claiming.goodbye(keys, worker, sorted(self.queues)))
            except RedisConnectionError as error:
                logger.warning("could not say goodbye (%s); others will notice", error)
                self._stop_beat()
            self.worker_id = ""

    def _stop_beat(self) -> None:
        if self._beat:
            self._beat.stop()
            self._beat = None
