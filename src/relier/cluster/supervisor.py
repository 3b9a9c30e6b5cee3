"""Keep the parts of a cluster running until it is ended."""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import time
from types import FrameType

from relier.cluster import logs, plan
from relier.cluster.control import Account, Asker, Control, Facts, PartFacts, Refusal, Request
from relier.cluster.findings import how_ended, kept_tasks
from relier.cluster.folder import Folder
from relier.cluster.launch import Wish, command, environment
from relier.cluster.plan import RESURRECTOR, SERVER, Part, Step
from relier.cluster.process import Lifeline, Process
from relier.errors import EmbeddedServerError, RelierError
from relier.ops import fleet
from relier.store.broker import Broker
from relier.store.embedded import EmbeddedServer

logger = logging.getLogger(__name__)

MOST_WORKERS = 256
_TICK_S = 0.1
_LOOK_S = 0.3
_TRIM_S = 5.0
_SLACK_S = 20.0
"""What a worker may take beyond its grace before it is killed."""
_RESURRECTOR_ENDS_WITHIN_S = 10.0
_ENDED_WELL = (0, -signal.SIGTERM)
"""The latter when it had yet to begin: from then on SIGTERM is a drain."""


class Supervisor:
    """Runs one cluster; `run` returns when it has ended.

    Args:
        wish: what to run.
        folder: its state folder, owned by this process.
        broker: how to reach the server.
        server: the embedded server, started; None: there is another.
    """

    def __init__(
        self,
        wish: Wish,
        folder: Folder,
        broker: Broker,
        server: EmbeddedServer | None,
    ) -> None:
        self._wish, self._folder, self._broker = wish, folder, broker
        self._server, self._size = server, wish.workers
        self._parts: dict[str, Part] = {}
        self._processes: dict[str, Process] = {}
        self._grace_s: dict[str, float] = {}
        self._lifeline = Lifeline()
        self._began_s = time.monotonic()
        self._look_s = self._trim_s = 0.0
        self._signals = 0
        self._was_ready = False
        self._ending_s: float | None = None
        self._why = ""
        self._purge = False
        self._drained = self._killed = 0
        self._wait_for_end: list[Asker] = []

    # -- its life

    def run(self) -> Account:
        """Start everything, and keep it running until a signal or an order ends it.

        Returns:
            What became of it all. Whatever happens, no process is left.
        """
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(signum, self._on_signal)
        control = Control(self._folder.socket)
        now_s = time.monotonic()
        if self._server is not None:
            self._parts[SERVER] = plan.ready(plan.started(Part(SERVER), now_s))
        self._parts[RESURRECTOR] = Part(RESURRECTOR)
        try:
            while not self._over():
                self._tick(control)
                select.select([control], [], [], _TICK_S)
            account = self._close()
        finally:
            for process in self._processes.values():
                process.kill()
            control.close()
            self._lifeline.close()
            self._folder.disown()
        # Only now, since who asked for the end may start anew at once.
        for asker in self._wait_for_end:
            asker.answer(account)
        return account

    def _tick(self, control: Control) -> None:
        while (asked := control.next()) is not None:
            self._answer(*asked)
        self._bury()
        self._look()
        for step in plan.steps(self._parts, self._size, time.monotonic()):
            self._do(step)
        if self._ready and not self._was_ready:
            self._was_ready = True
            logger.info("all is ready; RELIER_REDIS_URL=%s", self._broker.address.public)
        if self._signals and self._ending_s is None:
            self._end("")
        if self._ending_s is None and (why := plan.hopeless(self._parts)):
            logger.error("%s", why)
            self._end(why)

    def _over(self) -> bool:
        """Return whether all workers have ended, the resurrector behind them, or all must now."""
        if self._ending_s is None:
            return False
        if self._signals > 1:
            logger.warning("asked again: ending at once")
            return True
        workers_left = any(plan.is_worker(name) for name in self._parts)
        resurrector = self._parts.get(RESURRECTOR)
        if not workers_left and resurrector is not None and resurrector.state != "draining":
            self._drain(resurrector, _RESURRECTOR_ENDS_WITHIN_S)
        return not workers_left and RESURRECTOR not in self._parts

    def _end(self, why: str) -> None:
        self._ending_s, self._why, self._size = time.monotonic(), why, 0
        self._drained = self._killed = 0  # from here on they are for the account
        workers = sum(plan.is_worker(name) for name in self._parts)
        logger.info("ending: %d workers finish what they run, or hand it over", workers)

    def _close(self) -> Account:
        """End what is left, and draw up the account."""
        for name in [name for name in self._processes if self._processes[name].status() is None]:
            self._killed += plan.is_worker(name)
            self._processes.pop(name).kill()
        embedded = self._server is not None and not self._purge
        kept = kept_tasks(self._broker.store) if embedded else None
        if self._server is not None:
            self._server.stop()
            if self._purge:
                self._folder.purge()
        assert self._ending_s is not None
        took_s = time.monotonic() - self._ending_s
        return Account(self._drained, self._killed, kept, self._why, round(took_s, 3))

    # -- what others say

    def _on_signal(self, _signum: int, _frame: FrameType | None) -> None:
        self._signals += 1

    def _answer(self, request: Request, asker: Asker) -> None:
        if request.what == "end":
            if request.purge and self._server is None:
                asker.answer(Refusal("its server is not the cluster's own, and is not purged"))
                return
            self._purge = self._purge or request.purge
            self._wait_for_end.append(asker)
            if self._ending_s is None:
                self._end("")
            return
        if request.what == "scale":
            if self._ending_s is not None:
                asker.answer(Refusal("it is being ended"))
                return
            if not 1 <= request.size <= MOST_WORKERS:
                asker.answer(Refusal(f"1 to {MOST_WORKERS} workers, not {request.size}"))
                return
            self._scale(request.size)
        asker.answer(self._facts())

    def _scale(self, size: int) -> None:
        if size != self._size:
            logger.info("scaling from %d workers to %d", self._size, size)
        self._size = size
        for name, part in self._parts.items():
            if part.state == "failed":
                self._parts[name] = plan.revived(part)
        for step in plan.steps(self._parts, self._size, time.monotonic()):
            if step.act == "add":
                self._do(step)  # so that the answer names all that is wished for

    def _facts(self) -> Facts:
        now_s = time.monotonic()
        return Facts(
            pid=os.getpid(),
            app=self._wish.app,
            server=self._broker.address.public,
            embedded=self._server is not None,
            folder=str(self._folder.path),
            size=self._size,
            ready=self._ready,
            ending=self._ending_s is not None,
            uptime_s=round(now_s - self._began_s, 1),
            parts=[self._part_facts(part, now_s) for part in self._parts.values()],
        )

    @property
    def _ready(self) -> bool:
        works = all(part.state == "running" for part in self._parts.values())
        workers = sum(plan.is_worker(name) for name in self._parts)
        return works and workers == self._size and self._ending_s is None

    def _part_facts(self, part: Part, now_s: float) -> PartFacts:
        pid = None
        if part.alive:
            if part.name in self._processes:
                pid = self._processes[part.name].pid
            elif self._server is not None and self._server.running:
                pid = self._server.pid
        uptime_s = round(now_s - part.started_s, 1) if part.alive else None
        return PartFacts(part.name, pid, part.state, part.restarts, uptime_s, part.why)

    # -- what happens to the parts

    def _bury(self) -> None:
        """Notice which processes have ended."""
        for name, process in [*self._processes.items()]:
            status = process.status()
            if status is None:
                continue
            del self._processes[name]
            if plan.is_worker(name) and self._parts[name].state == "draining":
                well = status in _ENDED_WELL
                self._drained, self._killed = self._drained + well, self._killed + (not well)
            self._has_ended(name, how_ended(status))
        server = self._parts.get(SERVER)
        gone = self._server is not None and not self._server.running
        if gone and server is not None and server.alive:
            self._has_ended(SERVER, "ended")

    def _has_ended(self, name: str, how: str) -> None:
        part = self._parts[name]
        if part.state == "draining":
            logger.info("%s has ended (%s)", name, how)
            del self._parts[name]
            return
        now_s = time.monotonic()
        part = self._parts[name] = plan.ended(part, how, now_s)
        if part.state == "failed":
            logger.error(
                "%s %s, %d times in a row within %g s of its start, and is given up; its log says "
                "why: rl cluster logs %s. `rl cluster scale` tries it again",
                *(name, how, part.quick_ends, plan.QUICK_S, name),
            )
        else:
            logger.warning("%s %s; starting it again in %.2g s", name, how, part.due_s - now_s)

    def _look(self) -> None:
        """See which of the workers that were started have joined the fleet."""
        now_s = time.monotonic()
        if now_s - self._trim_s > _TRIM_S:
            self._trim_s = now_s
            logs.trim(self._folder.logs)
        starting = [part for part in self._parts.values() if part.state == "starting"]
        if not starting or now_s - self._look_s < _LOOK_S:
            return
        self._look_s = now_s
        try:
            members = fleet.workers(self._broker.store)
        except RelierError:
            return  # the server is away; it is looked for again
        host = socket.gethostname()
        # One that has not said what it takes from does not take from it yet.
        here = {each.pid: each for each in members if each.host == host and each.queues}
        for part in starting:
            member = here.get(self._processes[part.name].pid)
            if member is not None:
                self._grace_s[part.name] = member.grace_s
                self._parts[part.name] = plan.ready(part)
                logger.info("%s is ready (pid %d)", part.name, member.pid)

    def _do(self, step: Step) -> None:
        part = self._parts.get(step.name)
        if step.act == "add":
            self._parts[step.name] = Part(step.name)
        elif part is None:
            return
        elif step.act == "start":
            self._start(part)
        elif step.act == "drain":
            self._drain(part, self._grace_of(part.name) + _SLACK_S)
        elif step.act == "kill":
            logger.error("%s does not end; killing it", part.name)
            self._killed += plan.is_worker(part.name)
            self._processes.pop(part.name).kill()
            del self._parts[part.name]
        else:
            del self._parts[step.name]

    def _start(self, part: Part) -> None:
        begun = plan.started(part, time.monotonic())
        self._parts[part.name] = begun
        if part.name == SERVER:
            self._restart_server(begun)
            return
        try:
            self._processes[part.name] = Process(
                command(self._wish, part.name, self._folder.path),
                environment(self._url(), embedded=self._server is not None),
                self._folder.log(part.name),
                self._lifeline,
            )
        except OSError as error:  # no more processes, or files, for now
            self._has_ended(part.name, f"could not be started: {error}")
            return
        if part.name == RESURRECTOR:
            self._parts[part.name] = plan.ready(begun)

    def _restart_server(self, begun: Part) -> None:
        assert self._server is not None
        try:
            self._server.restart()
        except EmbeddedServerError as error:
            self._has_ended(SERVER, f"did not start: {error}")
        else:
            self._parts[SERVER] = plan.ready(begun)
            logger.info("the server is back (pid %d)", self._server.pid)

    def _drain(self, part: Part, within_s: float) -> None:
        process = self._processes.get(part.name)
        if process is None:
            del self._parts[part.name]
            return
        process.ask_to_end()
        self._parts[part.name] = plan.draining(part, time.monotonic() + within_s)

    def _grace_of(self, name: str) -> float:
        return self._grace_s.get(name, self._broker.settings.graceful_shutdown_timeout_s)

    def _url(self) -> str:
        return self._server.url if self._server is not None else self._wish.url or ""
