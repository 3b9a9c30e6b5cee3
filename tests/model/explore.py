"""Explore a world completely, breadth first, so that the first broken law has a shortest trace.

From every state it also drains: live processes go on, paused ones resume, Phoenix reaps, a healthy
worker does what is left, late bytes arrive last; then nothing may be left, and everything that was
accepted must have come to exactly one end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from model import laws
from model.model import hello
from model.moves import Move, Moves
from model.rules import RIGHT, Rules
from model.world import GONE, PAUSED, UP, Process, State, World, broken

_LONGEST_DRAIN = 200
_HEALTHY = 9


class Found(NamedTuple):
    """What an exploration found.

    Args:
        states: how many were visited.
        law: the law that broke first, or "".
        trace: how to get there, ending with what the drain did.
    """

    states: int
    law: str = ""
    trace: tuple[str, ...] = ()

    def __str__(self) -> str:
        if not self.law:
            return f"{self.states} states, no law broken"
        steps = "".join(f"\n  {i:2}. {step}" for i, step in enumerate(self.trace, 1))
        return f"{self.states} states: {self.law}{steps}"


Came = dict[State, tuple[State, str] | None]


def explore(world: World, rules: Rules = RIGHT) -> Found:
    """Visit every state of a world; stop at the first that breaks a law."""
    moves, first = Moves(world, rules), world.first_state()
    came: Came = {first: None}
    drained: dict[State, str] = {}
    waiting = deque([first])
    while waiting:
        state = waiting.popleft()
        law = broken(state)
        if law:
            return Found(len(came), law, tuple(_trace(came, state)))
        law = _drain(moves, state, drained)
        if law:
            tail = [f"(drain) {label}" for label in _drain_labels(moves, state)]
            return Found(len(came), law, (*_trace(came, state), *tail))
        for label, after in moves.all(state):
            if after not in came:
                came[after] = (state, label)
                waiting.append(after)
    return Found(len(came))


def _trace(came: Came, state: State) -> list[str]:
    steps = []
    at = came[state]
    while at is not None:
        state, label = at
        steps.append(label)
        at = came[state]
    return steps[::-1]


def _drain(moves: Moves, state: State, drained: dict[State, str]) -> str:
    """Return the law that is broken on the way to rest, or at rest; "" when all is well.

    Args:
        drained: the answers so far, for every state that a drain has passed.
    """
    path: list[State] = []
    state = state._replace(faults=0)
    law = ""
    while state not in drained:
        path.append(state)
        law = broken(state)
        if law:
            break
        step = next(_steps(moves, state), None)
        if step is None:
            law = laws.settle(state.redis, state.ledger)
            break
        if len(path) > _LONGEST_DRAIN:
            law = "LAW1 it never comes to rest"
            break
        state = step[1]
    else:
        law = drained[state]
    drained.update(dict.fromkeys(path, law))
    return law


def _drain_labels(moves: Moves, state: State) -> Iterator[str]:
    state = state._replace(faults=0)
    for _ in range(_LONGEST_DRAIN):
        step = next(_steps(moves, state), None)
        if broken(state) or step is None:
            return
        label, state = step
        yield label


def _steps(moves: Moves, s: State) -> Iterator[Move]:
    """Yield the steps of a drain, the most natural first. What was not yet published never is."""
    for process in s.processes:
        if process.status == PAUSED:
            yield from moves.process(s, process)
    begun = tuple(status or 2 for status in s.publishes)
    for label, n in moves.producer(s._replace(publishes=begun)):
        after = (now and then for now, then in zip(s.publishes, n.publishes, strict=True))
        yield label, n._replace(publishes=tuple(after))
    for process in s.processes:
        if process.status in (PAUSED, GONE):
            continue
        for holding in process.held:
            yield from moves.child(s, process, holding)
        if process.status == UP:
            yield from moves.main(s, process)
    yield from moves.server(s)
    for kid in s.redis.kids:
        yield f"{kid.task} runs and ends", moves.run_kid(s, kid)
    if (s.redis.queue or s.redis.replay) and all(p.worker != _HEALTHY for p in s.processes):
        redis = hello(s.redis, moves.rules, _HEALTHY).redis
        yield "a healthy worker joins", s._replace(redis=redis).put(Process(_HEALTHY))
    yield from moves.late(s)
