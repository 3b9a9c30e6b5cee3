"""What may happen next.

``Moves.all`` yields every next state with a label. A fault (crash, pause, a cut call, a stock
worker, ...) spends one of the world's faults. A cut call leaves its bytes in the net: the server
may run them at any later moment, or never; the caller, who saw an error, repeats the call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

from model import laws
from model.calls import call
from model.lives import failure
from model.rules import Rules
from model.state import ENDED, REPLACED, Message, Outcome, Record, derive
from model.world import (
    ASKING,
    DECIDED,
    GONE,
    HELD,
    ORPHAN,
    OUT,
    OVERDUE,
    PAUSED,
    RUNNING,
    SENDING,
    STOPPED,
    UNSENT,
    UP,
    Holding,
    Packet,
    Process,
    State,
    World,
)

Move = tuple[str, State]
Then = Callable[[State, Any], State]


class Moves(NamedTuple):
    """The moves of one world under one reading of the rules."""

    world: World
    rules: Rules

    def all(self, s: State) -> Iterator[Move]:
        """Yield every next state."""
        yield from self.producer(s)
        untouched = len(s.processes) > 1 and s.processes[0] == Process(1)
        for process in s.processes:
            # Workers 1 and 2 are alike: while neither has done anything, only 1 moves.
            if not (untouched and process == Process(2)):
                yield from self.process(s, process)
        yield from self.late(s)
        yield from self.server(s)
        yield from self.strangers(s)

    def producer(self, s: State) -> Iterator[Move]:
        """The producer publishes, and repeats until it is answered."""
        for i, (message, status) in enumerate(zip(self.world.publishes, s.publishes, strict=True)):
            if status == 2:
                continue
            if message.token in self.world.stock:
                pushed = s._replace(redis=s.redis.push(message)).publish(i, 2)
                yield f"stock producer publishes {message}", pushed
            else:
                sent = message
                if status and not self.rules.token_before_retry_loop:
                    sent = message._replace(token=message.token + "'")
                yield from self.ask(
                    s,
                    f"P enqueue {sent}",
                    Packet("enqueue", (sent,)),
                    partial(_published, i),
                    partial(_begun, i),
                )
            if status == 0:
                break

    # A worker process.

    def process(self, s: State, p: Process) -> Iterator[Move]:
        """What one worker process may do, or suffer."""
        w = p.worker
        if p.status == PAUSED:
            beating, _ = self.call(s.put(p._replace(status=UP)), Packet("beat", (w,)))
            yield f"{w} RESUMES", beating
        if p.status in (PAUSED, GONE):
            return
        if self.may(s, "crash"):
            yield f"{w} CRASHES", s.put(Process(w, GONE)).fault()
        if self.may(s, "pause"):
            yield f"{w} PAUSES", s.put(p._replace(status=PAUSED)).fault()
        if p.status == UP:
            yield from self.main(s, p)
        for holding in p.held:
            yield from self.child(s, p, holding)

    def main(self, s: State, p: Process) -> Iterator[Move]:
        """The main process claims, reconciles and leaves."""
        w = p.worker
        reconcile = Packet("reconcile", (w, p.epoch, tuple(h.number for h in p.held)))
        if p.lost:
            yield from self.ask(
                s,
                f"{w} reconcile(e{p.epoch})",
                reconcile,
                lambda n, given: n.put(p._replace(lost=False, status=OUT if given < 0 else UP)),
                lambda n: n.put(p._replace(epoch=p.epoch + 1)),
            )
            return
        if self.may(s, "reconcile"):
            # Once a heartbeat another thread does it, from what main held a moment ago.
            yield f"{w} sends a reconcile from another thread", s.fault().send(reconcile)
        if not p.held and self.may(s, "goodbye"):
            gone = Process(w, GONE)
            bye = Packet("goodbye", (w,))
            yield from self.ask(
                s.fault(), f"{w} goodbye", bye, lambda n, _: n.put(gone), lambda n: n.put(gone)
            )
        if len(p.held) < self.world.room and (s.redis.queue or s.redis.replay):
            yield from self.ask(
                s,
                f"{w} claim(e{p.epoch})",
                Packet("claim", (w, p.epoch)),
                lambda n, harvest: n.put(_claimed(p, harvest)),
                lambda n: n.put(p._replace(epoch=p.epoch + 1, lost=True)),
            )

    def child(self, s: State, p: Process, h: Holding) -> Iterator[Move]:
        """The life of one claim in a worker: its stage decides."""
        step = partial(self.step, s, p, h)
        yield from self.interference(s, p, h)
        if h.stage == HELD and h.message.token in self.world.unreadable:
            yield from step("bury", lambda _: None)
        elif h.stage == HELD and self.world.asks:
            yield from self.ask_user(s, p, h)
        elif h.stage == HELD:
            yield from step("start", lambda verdict: _started(h, verdict))
            if self.may(s, "impatience"):
                # Another suspect was on trial here whenever it asked.
                impatient = self.step(
                    s.fault(), p, h, "start", lambda verdict: _started(h, verdict), False
                )
                yield from impatient
        elif h.stage == ASKING:
            yield from step("start", lambda verdict: _started(h, verdict))
        elif h.stage == RUNNING:
            yield from self.body(s, p, h)
            if h.saves < self.world.saves:
                again = h._replace(saves=h.saves + 1)
                yield from step("checkpoint", lambda _: again, again.saves)
        elif h.stage == DECIDED:
            yield from self.commit(s, p, h, f"{_who(p, h)} ")
        elif h.stage == SENDING:
            yield from self.send(s, p, h)
        elif h.stage == UNSENT:
            script = "abandon" if self.rules.failed_send_stays_committed else "ack"
            yield from step(script, lambda _: None)
        elif h.stage == OVERDUE:
            yield from step("condemn", lambda ok: None if ok else h._replace(stage=ORPHAN))
        elif h.stage == STOPPED:
            yield from step("release", lambda ok: None if ok else h._replace(stage=ORPHAN), True)
        elif h.root or self.rules.child_death_returns_unstarted:
            yield from step("reap_claim", lambda _: None)
        else:
            yield from step("discard", lambda _: None, "")

    def ask_user(self, s: State, p: Process, h: Holding) -> Iterator[Move]:
        """User code is to say the key: the task starts without it."""

        def asking(verdict: Any) -> Holding | None:
            begun = _started(h, verdict)
            return begun and begun._replace(stage=ASKING)

        if self.rules.key_found_under_claim:
            yield from self.step(s, p, h, "start", asking, True, False)
        else:
            ledger = s.ledger.ask_user(h.message, self.rules)
            asks = s.put(p.put(h._replace(stage=ASKING)))._replace(ledger=ledger)
            yield f"{_who(p, h)} asks user code", asks

    def interference(self, s: State, p: Process, h: Holding) -> Iterator[Move]:
        """What may befall a claim in a live worker, apart from its own course."""
        who = _who(p, h)

        def stage(name: str) -> State:
            return s.put(p.put(h._replace(stage=name))).fault()

        if h.stage in (HELD, ASKING, RUNNING, DECIDED, SENDING) and self.may(s, "child"):
            dies = stage(ORPHAN)
            if h.stage == ASKING and not self.rules.key_found_under_claim:
                dies = dies._replace(ledger=dies.ledger.died(h.message))
            yield f"{who} CHILD DIES ({h.stage})", dies
        if h.stage in (RUNNING, DECIDED) and self.may(s, "timeout"):
            yield f"{who} HARD TIMEOUT", stage(OVERDUE)
        if h.stage in (ASKING, RUNNING, DECIDED) and self.may(s, "handover"):
            yield f"{who} IS STOPPED", stage(STOPPED)
        # Main may not know yet that its child has begun: what is refused stays in its hands.
        if h.stage in (HELD, ASKING, RUNNING) and self.may(s, "release"):
            held = None if h.stage == HELD else h
            yield from self.step(s.fault(), p, h, "release", lambda ok: held if ok else h)
        if h.stage == HELD and self.may(s, "discard"):
            expire = self.step(s.fault(), p, h, "discard", lambda ok: None if ok else h, "expired")
            yield from expire

    def body(self, s: State, p: Process, h: Holding) -> Iterator[Move]:
        """The body ends in one of its ways."""
        who = _who(p, h)
        for kind in self.world.bodies if h.generation == 0 else ("ok",):
            outcome = self.outcome(kind, h)
            decided = h._replace(stage=DECIDED, outcome=outcome)
            if kind == "replace" and not self.rules.replace_held_back:
                # Its ids are drawn at random, and it goes out from inside the body.
                drawn = sum(laws.origin(life.task) == f"h:{h.root}" for life in s.ledger.lives)
                header = Message(f"h:{h.root}#{drawn}", 0, f"{h.root}.h{drawn}")
                sent, _ = self.call(s, Packet("enqueue", (header,)))
                decided = decided._replace(outcome=outcome._replace(sends=()))
                yield f"{who} replace: publishes its header", sent.put(p.put(decided))
            else:
                yield from self.commit(s, p, decided, f"{who} {kind}: ")

    def commit(self, s: State, p: Process, h: Holding, label: str) -> Iterator[Move]:
        """What the body decided is committed; repeated until it is answered."""
        outcome = h.outcome
        assert outcome is not None
        bare = outcome.final == "ended" and not outcome.sends
        script = "finish" if bare else "commit"
        sending = p.drop(h.number) if bare else p.put(h._replace(stage=SENDING))
        yield from self.ask(
            s,
            label + script,
            Packet(script, (p.worker, h.number, outcome)),
            lambda n, ok: n.put(sending if ok else p.drop(h.number)),
            lambda n: n.put(p.put(h)),
        )

    def send(self, s: State, p: Process, h: Holding) -> Iterator[Move]:
        """The next consequence is sent, or the claim is acknowledged."""
        assert h.outcome is not None
        if h.sent == len(h.outcome.sends):
            yield from self.step(s, p, h, "ack", lambda _: None)
            return
        message = h.outcome.sends[h.sent]
        if self.may(s, "unsent"):
            yield f"{_who(p, h)} SEND FAILS", s.put(p.put(h._replace(stage=UNSENT))).fault()
        yield from self.ask(
            s,
            f"{_who(p, h)} send {message.task}",
            Packet("enqueue", (message,)),
            lambda n, _: n.put(p.put(h._replace(sent=h.sent + 1))),
            lambda n: n,
        )

    def outcome(self, kind: str, h: Holding) -> Outcome:
        """Return what a body that ends in one way commits."""
        if kind == "retry":
            token = derive(h.root, h.generation, "n")
            follower = Message(h.message.task, h.message.generation + 1, token)
            return Outcome("next", (), follower, h.root, h.generation)
        if kind == "replace":
            header = Message(f"h:{h.root}", h.generation, derive(h.root, h.generation, "h"))
            return Outcome("continued", (header,), None, h.root, h.generation)
        if kind == "bare":
            return Outcome("ended", (), None, h.root, h.generation)
        record = Record(h.message.task, ENDED, h.generation, h.root, ())
        dead = failure(record, self.rules)
        return dead if kind == "fail" else dead._replace(final="ended")

    # The rest of the world.

    def late(self, s: State) -> Iterator[Move]:
        """Bytes of a cut call arrive after all."""
        for packet in dict.fromkeys(s.net):
            net = list(s.net)
            net.remove(packet)
            yield f"(late) {packet} arrives", self.call(s._replace(net=tuple(net)), packet)[0]

    def server(self, s: State) -> Iterator[Move]:
        """Time passes, Phoenix reaps, replaced tasks go on."""
        for message in dict.fromkeys(s.redis.scheduled):
            left = list(s.redis.scheduled)
            left.remove(message)
            redis = s.redis._replace(scheduled=tuple(left)).push(message)
            yield f"{message} falls due", s._replace(redis=redis)
        for entry in s.redis.workers:
            alive = any(p.worker == entry.worker and p.status == UP for p in s.processes)
            if entry.trial and entry.dying < 0 and alive:
                ledger = s.ledger.clear(entry.worker, entry.trial)
                redis = s.redis.with_entry(entry._replace(trial=0))
                yield f"a trial in {entry.worker} is over", s._replace(redis=redis, ledger=ledger)
        for entry in s.redis.workers:
            process = next(p for p in s.processes if p.worker == entry.worker)
            condemned = process.status in (PAUSED, GONE) or entry.dying >= 0
            if not self.rules.epoch_raised_in_place and process.epoch > 1:
                # The former incarnation is gone; what is in the hash is taken to be its own.
                condemned |= any(c.worker == entry.worker for c in s.redis.claims)
            if condemned:
                reap = Packet("reap", (entry.worker, entry.beat))
                yield from self.ask(
                    s, f"Phoenix reap({entry.worker})", reap, lambda n, _: n, lambda n: n
                )
        for message in s.redis.kids:
            if message.task.startswith("h:"):
                yield f"{message.task} runs and publishes its body", self.run_kid(s, message)

    def run_kid(self, s: State, message: Message) -> State:
        """An ideal worker runs a consequence; a header publishes its parent's next generation."""
        kids = list(s.redis.kids)
        kids.remove(message)
        record = s.redis.record(message.task)
        redis = s.redis._replace(kids=tuple(kids))
        if record is None or record.state == ENDED:
            return s._replace(redis=redis)
        n = s._replace(redis=redis.with_record(record._replace(state=ENDED)))
        if message.task.startswith("h:"):
            root = message.token.rpartition(".")[0]
            parent = next(life.task for life in n.ledger.lives if life.root == laws.origin(root))
            token = derive(root, message.generation, "b")
            body = Message(parent, message.generation + REPLACED, token)
            n, _ = self.call(n, Packet("enqueue", (body,)))
        return n

    def strangers(self, s: State) -> Iterator[Move]:
        """Stock transports and workers, purges, and operators with a dead letter."""
        if self.may(s, "copy"):
            for record in s.redis.records:
                for known in record.tokens:
                    message = Message(record.task, known.generation, known.token)
                    redis = s.redis.push(message)
                    yield f"stock transport restores {message}", s._replace(redis=redis).fault()
        if self.may(s, "purge") and s.redis.queue:
            message, *rest = s.redis.queue
            ledger = s.ledger.take(message)
            redis = s.redis._replace(queue=tuple(rest))
            label = f"a purge or a stock worker takes {message}"
            yield label, s._replace(redis=redis, ledger=ledger).fault()
        if self.may(s, "revive"):
            for letter, message in s.redis.dead:
                fresh = Message(message.task, 0, f"v{s.faults}")
                revive = Packet("revive", (letter, fresh))
                yield from self.ask(
                    s.fault(), f"rl revives {letter}", revive, lambda n, _: n, lambda n: n
                )
        if self.may(s, "remove"):
            for letter, _ in s.redis.dead:
                remove = Packet("remove", (letter,))
                yield from self.ask(
                    s.fault(), f"rl removes {letter}", remove, lambda n, _: n, lambda n: n
                )

    # Calls.

    def may(self, s: State, kind: str) -> bool:
        """Tell whether a fault of this kind may still happen."""
        return s.faults > 0 and kind in self.world.kinds

    def call(self, s: State, packet: Packet) -> tuple[State, Any]:
        """Run a script."""
        return call(s, packet, self.world, self.rules)

    def ask(
        self, s: State, label: str, packet: Packet, then: Then, lost: Callable[[State], State]
    ) -> Iterator[Move]:
        """A call is answered; or it is cut: its bytes stay in the net, its caller repeats it."""
        yield label, then(*self.call(s, packet))
        if self.may(s, "cut"):
            yield f"{label} CUT", lost(s.send(packet).fault())

    def step(
        self,
        s: State,
        p: Process,
        h: Holding,
        script: str,
        then: Callable[[Any], Holding | None],
        *args: Any,
    ) -> Iterator[Move]:
        """A call about one claim; ``then`` says what becomes of the holding."""

        def answered(n: State, verdict: Any) -> State:
            after = then(verdict)
            return n.put(p.drop(h.number) if after is None else p.put(after))

        packet = Packet(script, (p.worker, h.number, *args))
        yield from self.ask(s, f"{_who(p, h)} {script}", packet, answered, lambda n: n)


def _published(i: int, s: State, _: Any) -> State:
    return s.publish(i, 2)


def _begun(i: int, s: State) -> State:
    return s.publish(i, 1)


def _who(p: Process, h: Holding) -> str:
    return f"{p.worker}[{h.message}]"


def _claimed(p: Process, harvest: Any) -> Process:
    if harvest == "gone":
        return p._replace(status=OUT)
    if harvest == "epoch":
        return p._replace(lost=True, epoch=p.epoch + 1)
    for claim in harvest:
        h = Holding(claim.number, claim.message)
        if claim.outcome:
            root, generation = claim.outcome.root, claim.outcome.generation
            h = h._replace(stage=SENDING, root=root, generation=generation, outcome=claim.outcome)
        p = p.put(h)
    return p


def _started(h: Holding, verdict: Any) -> Holding | None:
    if verdict[0] not in ("run", "done"):
        return None
    h = h._replace(stage=RUNNING, root=verdict[1], generation=verdict[2])
    if verdict[0] == "done":
        outcome = Outcome("ended", (), None, h.root, h.generation)
        return h._replace(stage=DECIDED, outcome=outcome)
    return h
