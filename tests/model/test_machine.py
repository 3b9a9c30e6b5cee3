"""The real scripts do what the model does: any calls, in any order, asked any number of times.

Nobody here behaves: claims are committed by workers that were reaped, publishes are repeated after
two further lives, everything is buried. The model says what must come of it; after each call the
server must hold what the model holds, and have answered the same.

``RELIER_FUZZ_EXAMPLES=5000`` runs that many random examples instead of the same few every time;
what fails prints the ``RELIER_FUZZ_SEED`` that replays it.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)

from model.pair import Pair
from model.rules import Rules
from model.state import REPLACED, Message, derive
from relier.store.address import Address
from relier.store.client import Store
from relier.store.embedded import EmbeddedServer
from relier.store.keys import Keys

EXAMPLES = int(os.environ.get("RELIER_FUZZ_EXAMPLES", "0"))
SEED = int(os.environ.get("RELIER_FUZZ_SEED", random.randrange(2**32)))
FEW_EXAMPLES, STEPS, MOST_WORKERS = 400, 40, 2

MEANT_FOR = {
    "conclude": "committed", "abandon": "committed", "end": "started", "condemn": "started",
    "begin": "held", "release": "held", "discard": "held", "bury": "held", "defer": "held",
    "reap_claim": "", "checkpoint": "started",
}  # fmt: skip
"""What stage a claim is in when a script, or a step, is called as it should be."""

DEATHS = {"killed": "reap_claim", "overdue": "condemn", "stopped": "release"}
INTERRUPTIONS = sorted({*MEANT_FOR} - {"begin", "end", "conclude"})
ENDINGS = ["ok", "bare", "fail", "retry", "replace"]

Move = tuple[str, dict[str, Any]]


def weighed(**weights: int) -> st.SearchStrategy[str]:
    """Draw a word, the heavier ones more often."""
    return st.sampled_from([word for word, weight in weights.items() for _ in range(weight)])


def move(name: str, **arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[Move]:
    """Draw one move of the machine and its arguments."""
    return st.tuples(st.just(name), st.fixed_dictionaries(arguments))


PICK = st.integers(0, 6)
# One rule that draws the move, not a rule for each: Hypothesis switches rules off at random, and a
# walk without claims, or without publishes, proves nothing.
MOVES = {
    "work": move(
        "work",
        i=PICK,
        room=st.integers(1, 3),
        steps=st.integers(0, 3),
        asks=st.booleans(),
        kind=st.sampled_from([*ENDINGS, *DEATHS, "killed"]),
    ),
    "dispatch": move(
        "dispatch",
        task=weighed(a=3, b=2, c=1, i=2, j=2),
        generation=st.sampled_from([0, 0, 0, 1, 2, -1]),
        how=weighed(now=3, later=1, stock=1),
    ),
    "interrupt": move(
        "interrupt", i=PICK, script=st.sampled_from(INTERRUPTIONS), last=st.booleans()
    ),
    "blunder": move(
        "blunder",
        i=PICK,
        step=st.sampled_from(["begin", "end", "conclude"]),
        kind=st.sampled_from(ENDINGS),
    ),
    "reconnect": move(
        "reconnect",
        i=PICK,
        raised=st.integers(-1, 1),
        forgotten=st.integers(0, 2),
        claims=st.booleans(),
    ),
    "come_and_go": move("come_and_go", i=PICK, script=weighed(beat=3, goodbye=1)),
    "reap": move("reap", i=PICK, batch=st.integers(1, 3), late=weighed(no=3, yes=1)),
    "outside": move(
        "outside",
        i=PICK,
        what=weighed(due=4, copy=2, body=2, revive=3, remove=1, purge=1, tried=1, swept=1),
    ),
    "late": move("late", back=st.sampled_from([0, 0, 1, 2, 3, 5, 8, 13, 21])),
}
WEIGHTS = {
    "work": 8, "dispatch": 3, "interrupt": 3, "blunder": 2, "reconnect": 2, "come_and_go": 1,
    "reap": 1, "outside": 4, "late": 4,
}  # fmt: skip


class Scripts(RuleBasedStateMachine):
    """Moves of workers, producers, operators and bad luck."""

    store: Store
    reached: Counter[str]

    @initialize(
        tasks=st.text("abcij", min_size=1, max_size=3),
        resurrections=st.sampled_from([0, 1, 3, 3]),
        interruptions=st.integers(0, 3),
    )
    def begin(self, tasks: str, resurrections: int, interruptions: int) -> None:
        """Two workers, and something to do."""
        rules = Rules(max_resurrections=resurrections, max_interruptions=interruptions)
        self.pair = Pair(self.store, rules, self.reached)
        for _ in range(MOST_WORKERS):
            self.pair.join()
        for task in tasks:
            self.pair.publish(Message(task, 0, self.pair.token()))

    @rule(move=weighed(**WEIGHTS).flatmap(MOVES.__getitem__))
    def step(self, move: Move) -> None:
        """Make one move."""
        name, arguments = move
        getattr(self, f"_{name}")(self.pair, **arguments)

    def _work(self, pair: Pair, i: int, room: int, steps: int, asks: bool, kind: str) -> None:
        """A worker claims what it has room for, and one of its claims goes on."""
        worker = pair.worker(i)
        mine = [claim for claim in pair.live() if claim[0] == worker]
        if len(mine) < room:
            pair.claim(worker, room - len(mine))
            mine = [claim for claim in pair.live() if claim[0] == worker]
        for _ in range(steps if mine else 0):
            self._proceed(pair, *mine[i % len(mine)], asks, kind)

    def _proceed(self, pair: Pair, worker: int, number: int, asks: bool, kind: str) -> None:
        """A claim takes its natural next step, or its process dies."""
        claim = pair.model.claim(worker, number)
        if claim is None:
            return
        if claim.outcome:
            pair.conclude(worker, number)
        elif claim.started and kind in DEATHS:
            extra = [True] if kind == "stopped" else []
            pair.call(DEATHS[kind], worker, number, *extra)
        elif claim.started:
            pair.end(worker, number, kind)
        else:
            if asks:
                pair.begin(worker, number, keyed=False)
            if not (asks and kind in DEATHS):
                pair.begin(worker, number)

    def _interrupt(self, pair: Pair, i: int, script: str, last: bool) -> None:
        """Something befalls a claim, at a good moment or a bad one."""
        if pair.held:
            more = {"discard": ("expired",), "checkpoint": (i % 3 + 1,)}
            more |= dict.fromkeys(("defer", "release"), (last,))
            pair.call(script, *pair.pick(i, MEANT_FOR[script]), *more.get(script, ()))

    def _blunder(self, pair: Pair, i: int, step: str, kind: str) -> None:
        """A step out of turn, or by a process that lost its claim."""
        if pair.held:
            extra = [kind] if step == "end" else []
            getattr(pair, step)(*pair.pick(i, MEANT_FOR[step]), *extra)

    def _reconnect(self, pair: Pair, i: int, raised: int, forgotten: int, claims: bool) -> None:
        """A worker reconciles; or bytes of an older epoch claim."""
        worker = pair.worker(i)
        if claims:
            pair.claim(worker, 1, epochs_behind=1)
        held = [number for whose, number in pair.live() if whose == worker]
        pair.call("reconcile", worker, pair.epoch(worker) + raised, tuple(held[forgotten:]))

    def _come_and_go(self, pair: Pair, i: int, script: str) -> None:
        """A worker beats, or leaves and another joins."""
        pair.call(script, pair.worker(i))
        self._staff(pair)

    def _reap(self, pair: Pair, i: int, batch: int, late: str) -> None:
        """A worker is reaped that died, is dying, or has beaten since it was judged."""
        dying = [entry for entry in pair.model.workers if entry.dying >= 0]
        entries = dying or pair.model.workers
        entry = entries[i % len(entries)]
        pair.call("reap", entry.worker, max(entry.beat - (late == "yes"), 0), batch)
        self._staff(pair)

    def _staff(self, pair: Pair) -> None:
        if len(pair.up()) < MOST_WORKERS:
            pair.join()

    def _dispatch(self, pair: Pair, task: str, generation: int, how: str) -> None:
        """Something is published."""
        message = Message(task, generation, pair.token())
        if how == "stock":
            pair.publish_as_stock(message)
        else:
            pair.publish(message, delayed=how == "later")

    def _outside(self, pair: Pair, i: int, what: str) -> None:
        """Time passes; strangers, chords and operators do what they do."""
        getattr(self, f"_{what}")(pair, i)

    def _due(self, pair: Pair, i: int) -> None:
        scheduled = pair.model.scheduled
        if scheduled:
            message, worker = scheduled[i % len(scheduled)], pair.up()[0]
            pair.real.fall_due(message, worker, pair.epoch(worker))
            left = tuple(each for each in scheduled if each != message)
            due = pair.model._replace(scheduled=left).push(message)
            pair.without_script(due, f"{message} falls due")

    def _swept(self, pair: Pair, i: int) -> None:
        pair.call("sweep")

    def _tried(self, pair: Pair, i: int) -> None:
        on_trial = [entry for entry in pair.model.workers if entry.trial]
        if on_trial:
            entry = on_trial[i % len(on_trial)]
            pair.real.end_trial(entry.worker)
            over = pair.model.with_entry(entry._replace(trial=0))
            pair.without_script(over, f"a trial in {entry.worker} is over")

    def _copy(self, pair: Pair, i: int) -> None:
        pair.publish_as_stock(pair.said[-1 - i % len(pair.said)])

    def _body(self, pair: Pair, i: int) -> None:
        """A chord's body, or a chain's end, takes over the id of a replaced task."""
        if pair.ran:
            number = list(pair.ran)[-1 - i % len(pair.ran)]
            root, generation = pair.ran[number]
            token = derive(root, generation, "b")
            pair.publish(Message(pair.held[number].task, generation + REPLACED, token))

    def _revive(self, pair: Pair, i: int) -> None:
        if pair.model.dead:
            letter, message = pair.model.dead[i % len(pair.model.dead)]
            fresh = Message(message.task, i % 2, pair.token())
            pair.said.append(fresh)
            pair.call("revive", letter, fresh)

    def _remove(self, pair: Pair, i: int) -> None:
        if pair.model.dead:
            pair.call("remove", pair.model.dead[i % len(pair.model.dead)][0])

    def _purge(self, pair: Pair, i: int) -> None:
        if pair.model.queue:
            message, *rest = pair.model.queue
            pair.real.purge()
            left = pair.model._replace(queue=tuple(rest))
            pair.without_script(left, f"a stock worker takes {message}")

    def _late(self, pair: Pair, back: int) -> None:
        """A reply was lost, so the call is made again; or it arrives when nobody waits for it."""
        pair.repeat(pair.calls[-1 - back % len(pair.calls)])


REACHED = {
    "abandon True", "ack True", "bury True", "checkpoint 0", "checkpoint 1", "claim epoch",
    "claim gone", "commit True",
    "condemn True", "defer buried", "defer deferred", "discard 1", "enqueue known", "finish True",
    "reap done", "reap more", "reap_claim exhausted", "reap_claim requeued",
    "reap_claim scheduled", "reconcile 1", "reconcile -1", "release 1", "remove 1", "revive 1",
    "revive -1",
    "start done", "start drop", "start parked", "start replay", "start run", "start stale",
}  # fmt: skip
"""Answers that must have come up, whatever the examples were."""


# What fails is made small before it is shown, which may take minutes.
@pytest.mark.timeout(600 + EXAMPLES)
def test_scripts_follow_the_model(server: EmbeddedServer) -> None:
    reached: Counter[str] = Counter()
    store = Store(Address.parse(server.url), Keys("fuzz:"))
    machine = type("Scripts", (Scripts,), {"store": store, "reached": reached})
    chosen = settings(
        max_examples=EXAMPLES or FEW_EXAMPLES,
        stateful_step_count=STEPS,
        derandomize=not EXAMPLES,
        deadline=None,
        database=None,
        print_blob=False,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    if EXAMPLES:
        print(f"replay with RELIER_FUZZ_EXAMPLES={EXAMPLES} RELIER_FUZZ_SEED={SEED}")
        machine = seed(SEED)(machine)
    run_state_machine_as_test(machine, settings=chosen)
    store.close()
    print(*sorted(reached.items()), sep="\n")
    assert set(reached) >= REACHED, "the random walk became too shallow to prove much"
