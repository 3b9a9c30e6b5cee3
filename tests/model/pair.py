"""The model and a server side by side: every call is made on both, and everything is compared."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import note

from model.model import SCRIPTS
from model.real import RealScripts, ending, letters_of, seen, verdict_seen
from model.rules import Rules
from model.state import Claim, Message, Outcome, Redis
from relier.store.client import Store

Call = tuple[str, tuple[Any, ...]]


class Pair:
    """Both sides, and what those who call the scripts know.

    Args:
        store: a database that is emptied.
        rules: the right ones; their limits may differ.
        reached: counts the answers of every script.
    """

    def __init__(self, store: Store, rules: Rules, reached: Counter[str]) -> None:
        store.redis.flushdb()
        self.rules, self.reached = rules, reached
        self.real, self.model = RealScripts(store, rules), Redis()
        self.calls: list[Call] = []
        self.gone: list[tuple[int, int]] = []
        self.ran: dict[int, tuple[str, int]] = {}
        self.held: dict[int, Message] = {}
        self.said: list[Message] = []
        self._last_number = self._last_worker = self._last_token = 0

    # Calling and comparing.

    def call(self, script: str, *args: Any) -> Any:
        """Make one call on both sides and compare its answers and all that they hold."""
        self.calls.append((script, args))
        if script == "claim":
            worker, epoch, room = args
            numbers = range(self._last_number + 1, self._last_number + 1 + room)
            self._last_number += room
            args = (worker, epoch, tuple(numbers))
        before = self.model
        reply = SCRIPTS[script](before, self.rules, *args)
        verdict = getattr(self.real, script)(*args)
        note(f"{script}{args} -> {verdict}")
        should = verdict_seen(reply.verdict)
        assert verdict == should, f"{script} answers {verdict}, the model {should}"
        self.reached[f"{script} {_head(verdict)}"] += 1
        self.model = reply.redis
        rung = self._compare()
        grew = len(self.model.queue) > len(before.queue)
        grew |= len(self.model.replay) > len(before.replay)
        assert rung or not grew, f"{script} puts something into a queue and wakes nobody"
        gone = {claim[:2] for claim in before.claims} - set(self.live())
        self.gone += sorted(gone)
        return verdict

    def repeat(self, call: Call) -> None:
        """Make a call again whose reply was lost, or whose bytes were late."""
        script, args = call
        if script == "revive" and not self._names_the_same_letter(*args):
            return
        if script == "remove" and args[0] not in dict(self.model.dead):
            return
        answer = self.call(script, *args)
        if script == "claim":
            # Its reply reaches nobody; we need to know the messages all the same.
            self._know(answer)

    def without_script(self, model: Redis, what: str) -> None:
        """Compare after something happened on both sides that no script did."""
        note(what)
        self.model = model
        self._compare()

    def _compare(self) -> bool:
        real, rung = self.real.state()
        for field, should, has in zip(Redis._fields, seen(self.model), seen(real), strict=True):
            assert should == has, f"{field}: the model has {should}, the server {has}"
        assert letters_of(real) == letters_of(self.model), "dead letters"
        self.real.name_letters(self.model, real)
        return rung

    def _names_the_same_letter(self, letter: str, fresh: Message) -> bool:
        """Tell whether the letter is still there, or the call was answered with a new life.

        Else another letter may have its name by now; an operator reads a letter before.
        """
        record = self.model.record(fresh.task)
        known = record is not None and record.knows(fresh.token) is not None
        return known or letter in dict(self.model.dead)

    # What there is.

    def live(self) -> list[tuple[int, int]]:
        """Return the claims there are."""
        return [(claim.worker, claim.number) for claim in self.model.claims]

    def pick(self, i: int, stage: str) -> tuple[int, int]:
        """Return a claim: mostly one in a stage, or any, or one that is gone.

        Args:
            stage: "held", "started", "committed", or "" for any.
        """
        suits = [claim[:2] for claim in self.model.claims if stage in ("", _stage(claim))]
        if suits and i < 4:
            return suits[i % len(suits)]
        known = [*self.live(), *self.gone[-3:]]
        return known[i % len(known)]

    def up(self) -> list[int]:
        """Return the workers that live."""
        return [entry.worker for entry in self.model.workers if entry.dying < 0]

    def worker(self, i: int) -> int:
        """Return a worker that lives, or sometimes one that may not."""
        up = self.up()
        return up[i % len(up)] if up and i < 6 else 1

    def epoch(self, worker: int) -> int:
        """Return a worker's epoch."""
        entry = self.model.entry(worker)
        return entry.epoch if entry else 1

    def token(self) -> str:
        """Mint a token."""
        self._last_token += 1
        return f"t{self._last_token}"

    # What a producer and a worker do.

    def join(self) -> None:
        """A new worker says hello."""
        self._last_worker += 1
        self.call("hello", self._last_worker)

    def publish(self, message: Message, *, delayed: bool = False) -> None:
        """A producer publishes, perhaps for later."""
        self.said.append(message)
        self.call("enqueue", message, delayed)

    def publish_as_stock(self, message: Message) -> None:
        """A stock producer, or a stock transport that restores a copy, pushes into the list."""
        self.said.append(message)
        self.real.copy(message)
        self.without_script(self.model.push(message), f"a stock producer pushes {message}")

    def claim(self, worker: int, room: int, *, epochs_behind: int = 0) -> None:
        """A worker claims."""
        self._know(self.call("claim", worker, self.epoch(worker) - epochs_behind, room))

    def _know(self, taken: Any) -> None:
        if isinstance(taken, tuple):
            for number, message, _, _ in taken:
                self.held[number] = message
                self.said.append(message)

    def begin(self, worker: int, number: int, *, keyed: bool = True) -> None:
        """A process starts a claim; without its key, if it has yet to ask user code for that."""
        verdict = self.call("start", worker, number, True, keyed)
        if verdict[0] in ("run", "replay", "done"):
            self.ran[number] = verdict[1:3]

    def end(self, worker: int, number: int, kind: str) -> None:
        """A body ends in one of its ways; see ``ending``."""
        outcome = self._outcome(number, kind)
        bare = outcome.final == "ended" and not outcome.sends
        self.call("finish" if bare else "commit", worker, number, outcome)

    def conclude(self, worker: int, number: int) -> None:
        """A process sends what follows from a committed claim, and ends it."""
        claim = self.model.claim(worker, number)
        for message in claim.outcome.sends if claim and claim.outcome else ():
            self.call("enqueue", message)
        self.call("ack", worker, number)

    def _outcome(self, number: int, kind: str) -> Outcome:
        """Return what a body commits; it knows what ``start`` told it."""
        message = self.held[number]
        root, generation = self.ran.get(number, (message.token, message.generation))
        return ending(kind, message, root, generation)


def _stage(claim: Claim) -> str:
    if claim.outcome:
        return "committed"
    return "started" if claim.started else "held"


def _head(verdict: Any) -> str:
    if isinstance(verdict, tuple):
        return str(verdict[0]) if verdict and isinstance(verdict[0], str) else "given"
    return str(verdict)
