"""The play: open the shop, kill its workers while they work, close, and settle the account."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import Any

from relier.demo import account, orders
from relier.demo.account import Account, Recovery
from relier.demo.journal import BEGUN, Journal
from relier.demo.orders import Order
from relier.demo.scene import Scene, Way
from relier.demo.screen import Screen
from relier.demo.surroundings import Surroundings
from relier.demo.worker import Worker, ended, stop_all
from relier.errors import RelierError
from relier.ops import events, fleet
from relier.protocol.identity import mint_token
from relier.store import reading
from relier.store.broker import Broker
from relier.store.embedded import EmbeddedServer

NAMES = ("first", "second")

_TICK_S = 0.05
_BETWEEN_ORDERS_S = 0.64
_ORDERS_AT_ONCE = 2
_BEFORE_FIRST_KILL = 8
_BEFORE_SECOND_KILL = 24
_EARLY_ENOUGH = 0.75
_USUAL_ORDERS = 48
_MOST_ORDERS = 500
_MOST_TRIES = 5
_READY_DEADLINE_S = 30.0
_CLOSING_DEADLINE_S = 60.0

Script = Iterator[None]


def run(screen: Screen, folder: Path, *, url: str | None, order_count: int, seed: int) -> Account:
    """Play it once.

    Args:
        screen: where it is shown.
        folder: what it leaves on disk.
        url: a server to use; None starts one of our own.
        order_count: how many orders the customers place.
        seed: of the orders.

    Raises:
        RelierError: a server or worker could not be started, or the shop did not come to its end.
    """
    with ExitStack() as cleanup:
        server = None if url else cleanup.enter_context(EmbeddedServer())
        prefix = "" if server else f"rl-demo-{mint_token()[:8]}:"
        place = Surroundings(server.url if server else str(url), prefix, folder.absolute())
        place.prepare()
        os.environ.update(place.environment)
        shop = import_module("relier.demo.shop")
        broker: Broker = shop.app.relier.broker
        cleanup.enter_context(reading.answered(broker.address))
        if not server:
            reading.now_ms(broker.store)
            cleanup.callback(reading.remove_prefixed, broker.store)
        workers = [Worker(name, place) for name in NAMES]
        cleanup.callback(_kill_all, workers)
        cleanup.enter_context(screen)
        return Play(screen, place, broker, shop, workers, order_count, seed).run()


class Play:
    """One run; every tick places what is ordered, takes in the news, moves the script on."""

    def __init__(
        self,
        screen: Screen,
        place: Surroundings,
        broker: Broker,
        shop: Any,
        workers: list[Worker],
        order_count: int,
        seed: int,
    ) -> None:
        self._screen, self._place, self._broker, self._shop = screen, place, broker, shop
        self._workers = workers
        self._seed = seed
        self._to_place = orders.place(order_count, seed)
        self._placed: list[Order] = []
        self._receipts: dict[str, Any] = {}
        self._journal = Journal(place.journal)
        self._feed = events.Feed(broker.store, [shop.QUEUE])
        self._events: list[events.Event] = []
        self._recoveries: list[Recovery] = []
        self._scene = Scene(order_count, [worker.name for worker in workers])
        self._began_s = time.monotonic()
        self._next_order_s = float("inf")
        self._dead_pids: set[int] = set()

    def run(self) -> Account:
        """Play until the shop has closed; return the account."""
        scene = self._scene
        scene.say(f"server at {self._broker.address.public}")
        for _ in self._script():
            self._tick()
            time.sleep(_TICK_S)
        self._tick()
        members = fleet.workers(self._broker.store)
        held = fleet.claims(self._broker.store, members)
        queues = fleet.queues(self._broker.store, held)
        scene.say("closing the shop")
        self._screen.draw(scene)
        stop_all(self._workers)
        return account.draw_up(
            self._placed,
            self._receipts,
            self._events,
            self._recoveries,
            self._place,
            left_over=sum(q.waiting + q.scheduled + q.claimed + q.replay + q.dead for q in queues),
            took_s=time.monotonic() - self._began_s,
        )

    # -- the script

    def _script(self) -> Script:
        for worker in self._workers:
            self._start(worker)
        yield from self._until(self._all_ready, _READY_DEADLINE_S, "the workers to be ready")
        self._next_order_s = self._now_s()
        yield from self._until(lambda: self._scene.accepted >= self._after(_BEFORE_FIRST_KILL))
        victim = yield from self._busy_worker()
        yield from self._kill_worker(victim)
        self._start(victim)
        yield from self._until(lambda: self._scene.accepted >= self._after(_BEFORE_SECOND_KILL))
        yield from self._until(self._all_ready, _READY_DEADLINE_S, "the workers to be ready")
        yield from self._kill_pool_process()
        yield from self._until(self._all_done, _CLOSING_DEADLINE_S, "every invoice to be booked")

    def _busy_worker(self) -> Generator[None, None, Worker]:
        """Wait for a worker both of whose processes have just begun to print.

        One process will do when half of the orders are through and no worker had two.
        """
        while True:
            enough = 2 if self._scene.accepted < self._scene.total / 2 else 1
            for worker in self._workers:
                if len(self._early(worker.name)) >= enough:
                    return worker
            self._keep_open()
            yield

    def _kill_worker(self, victim: Worker) -> Script:
        """Kill a worker while it prints, and wait until all it had in hand is printed again."""
        scene = self._scene
        worker_ids = {
            member.worker_id
            for member in fleet.workers(self._broker.store)
            if member.pid == victim.pid
        }
        victim.kill()
        killed_s = time.monotonic()
        self._dead_pids.add(victim.pid)
        scene.stages[victim.name].state = "killed"
        # What the dead worker still holds in Redis is what the kill has cut short.
        members = [m for m in fleet.workers(self._broker.store) if m.worker_id in worker_ids]
        held = fleet.claims(self._broker.store, members)
        cut = [c.task_id for c in held if c.started and not c.committed]
        ways = [found[0] for found in map(scene.way_of, cut) if found]
        names = " and ".join(way.invoice for way in ways)
        scene.say(f"kill -9 {victim.name} (pid {victim.pid}) while it prints {names}", "kill")
        for way in ways:
            scene.killed(way)
        yield from self._await_return(cut, "worker", killed_s)

    def _kill_pool_process(self) -> Script:
        """Kill the process of one task; its worker lives on."""
        scene = self._scene
        for _ in range(_MOST_TRIES):
            early: list[Way] = []
            while not early:
                self._keep_open()
                yield
                early = [way for worker in self._workers for way in self._early(worker.name)]
                early = [way for way in early if not way.deaths and self._last_begun(way.invoice)]
            way = early[0]
            entry = self._last_begun(way.invoice)
            assert entry is not None
            os.kill(entry.pid, signal.SIGKILL)
            killed_s = time.monotonic()
            what = f"kill -9 pool process {entry.pid} while it prints {way.invoice}"
            scene.say(f"{what} for {way.worker}", "kill")
            scene.killed(way)
            yield from self._await_return([entry.task_id], "pool process", killed_s)
            if any(recovery.killed == "pool process" for recovery in self._recoveries):
                return

    def _await_return(self, task_ids: list[str], killed: str, killed_s: float) -> Script:
        """Wait until each task runs again; one that had just committed has nothing to repeat."""
        missing = set(task_ids)
        deadline_s = time.monotonic() + _CLOSING_DEADLINE_S
        while missing and time.monotonic() < deadline_s:
            yield
            for entry in self._journal.entries():
                if entry.task_id in missing and entry.step == BEGUN and entry.at_s > killed_s:
                    missing.discard(entry.task_id)
                    after_s = round(entry.at_s - killed_s, 3)
                    self._recoveries.append(Recovery(entry.invoice, killed, after_s))
                    self._returned(entry.invoice, after_s)
            missing -= {e.task_id for e in self._events if e.kind == "ended"}
        for task_id in missing:
            found = self._scene.way_of(task_id)
            self._recoveries.append(Recovery(found[0].invoice if found else task_id, killed, None))

    def _returned(self, invoice: str, after_s: float) -> None:
        self._tick()  # the news of its start, and with it the worker's name
        self._scene.back(self._scene.ways[invoice], after_s)

    # -- conditions

    def _until(
        self, condition: Callable[[], bool], deadline_s: float = 60.0, what: str = "the shop"
    ) -> Script:
        """Wait for a condition.

        Raises:
            RelierError: it did not come.
        """
        until_s = time.monotonic() + deadline_s
        while not condition():
            if time.monotonic() > until_s:
                raise RelierError(
                    f"waited {deadline_s:.0f} s for {what}; see the logs in {self._place.logs}"
                )
            yield

    def _keep_open(self) -> None:
        """Take more orders if all were done before a kill, as on a machine that is busy."""
        total = self._scene.total
        if self._all_done() and total < _MOST_ORDERS:
            self._to_place += orders.place(total + _ORDERS_AT_ONCE, self._seed)[total:]
            self._scene.total += _ORDERS_AT_ONCE
        elif self._all_done():
            raise RelierError("every order was done before a kill: the machine is too busy")

    def _all_ready(self) -> bool:
        return all(stage.state == "ready" for stage in self._scene.stages.values())

    def _all_done(self) -> bool:
        return self._scene.accepted == self._scene.total == self._scene.done

    def _after(self, orders_placed: int) -> int:
        """Return how many orders to wait for; a short run has its kills earlier."""
        return min(orders_placed, max(self._scene.total * orders_placed // _USUAL_ORDERS, 2))

    def _early(self, worker: str) -> list[Way]:
        """Return what a worker has just begun to print, so that a kill finds it half done."""
        render_s = {order["invoice"]: order["render_s"] for order in self._placed}
        now_s = self._now_s()
        return [
            way
            for way in self._scene.printing(worker)
            if now_s - way.since_s < render_s[way.invoice] * _EARLY_ENOUGH
        ]

    def _last_begun(self, invoice: str) -> Any:
        steps = [entry for entry in self._journal.entries() if entry.invoice == invoice]
        return steps[-1] if steps and steps[-1].step == BEGUN else None

    # -- every tick

    def _tick(self) -> None:
        scene = self._scene
        scene.now_s = self._now_s()
        for worker in ended(self._workers):
            if worker.pid not in self._dead_pids:
                log = self._place.logs / f"{worker.name}.log"
                raise RelierError(f"worker {worker.name} ended by itself; see {log}")
        self._place_orders()
        scene.see_members(fleet.workers(self._broker.store))
        for event in self._feed.news():
            self._events.append(event)
            scene.see(event)
        self._screen.draw(scene)

    def _place_orders(self) -> None:
        while self._to_place and self._now_s() >= self._next_order_s:
            for order in self._to_place[:_ORDERS_AT_ONCE]:
                receipts = self._shop.accept(order)
                self._placed.append(order)
                self._receipts[order["invoice"]] = receipts
                self._scene.order(order["invoice"], *(receipt.id for receipt in receipts))
            del self._to_place[:_ORDERS_AT_ONCE]
            self._next_order_s += _BETWEEN_ORDERS_S

    def _start(self, worker: Worker) -> None:
        again = "again" if worker.pid else "with two processes"
        worker.start()
        stage = self._scene.stages[worker.name]
        stage.state, stage.pid = "starting", worker.pid
        self._scene.say(f"start worker {worker.name} {again}")

    def _now_s(self) -> float:
        return time.monotonic() - self._began_s


def _kill_all(workers: list[Worker]) -> None:
    for worker in workers:
        worker.kill()
