"""The laws, as a ledger of what happened and as checks of one state.

The ledger keeps its own account of which publish belongs to which life, from the facts the scripts
report; what a record in the model believes is never taken for granted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from model.rules import Rules
from model.state import (
    COMMITTED,
    CONTINUED,
    DEAD,
    ENDED,
    QUEUED,
    REPLACED,
    STARTED,
    Fact,
    Message,
    Outcome,
    Record,
    Redis,
    Saved,
    is_consequence,
)


class Life(NamedTuple):
    """One accepted task, from its first publish to its end.

    Args:
        generations: those that committed.
        finals: commits that were not a retry or a replace.
        ends: times it reached its end.
        letter: it ended as a dead letter, which was neither revived nor removed.
        taken: a purge or a stock worker took its message; nobody owes it an end any more.
        deaths: processes that died under it alone.
        interruptions: workers that died under it and its neighbours.
        exhausted: it died once more than it may.
        owed: consequences that its commits promised.
        saved: its last checkpoint.
    """

    root: str
    task: str
    generations: tuple[int, ...] = ()
    finals: int = 0
    ends: int = 0
    letter: bool = False
    taken: bool = False
    deaths: int = 0
    interruptions: int = 0
    exhausted: bool = False
    owed: tuple[str, ...] = ()
    saved: Saved | None = None


class Ledger(NamedTuple):
    """What happened so far.

    Args:
        lives: accepted tasks.
        publishes: whose publish is whose.
        condemned: how many ran when a worker was condemned.
        suspected: how many of them were suspects whose trial was not over.
        cleared: claims (worker, number) of suspects whose trial was over.
        kept: idempotency keys whose result was kept.
    """

    lives: tuple[Life, ...] = ()
    publishes: tuple[tuple[str, str], ...] = ()
    condemned: tuple[tuple[int, int], ...] = ()
    suspected: tuple[tuple[int, int], ...] = ()
    cleared: tuple[tuple[int, int], ...] = ()
    kept: tuple[str, ...] = ()
    broken: str = ""

    def breaks(self, what: str) -> Ledger:
        """Return the ledger with a broken law; the first one stays."""
        return self if self.broken else self._replace(broken=what)

    def life(self, root: str) -> Life | None:
        """Return the life that began with a publish."""
        for life in self.lives:
            if life.root == root:
                return life
        return None

    def life_of(self, token: str) -> str:
        """Return the root of the life that a token's publish belongs to, or "" if it is new."""
        return dict(self.publishes).get(origin(token), "")

    def write(self, life: Life) -> Ledger:
        """Return the ledger with a life written."""
        others = [each for each in self.lives if each.root != life.root]
        return self._replace(lives=tuple(sorted([*others, life])))

    def take(self, message: Message) -> Ledger:
        """Return the ledger after a purge or a stock worker took a waiting message."""
        life = self.life(self.life_of(message.token))
        return self.write(life._replace(taken=True)) if life else self

    def ask_user(self, message: Message, rules: Rules) -> Ledger:
        """Return the ledger after user code was run for a task that has not started."""
        life = self.life(self.life_of(message.token))
        if life and life.deaths > rules.max_resurrections:
            return self.breaks(f"LAW6 user code of {life.task} runs after {life.deaths} deaths")
        return self

    def died(self, message: Message) -> Ledger:
        """Return the ledger after user code killed a process, and no script will say so."""
        life = self.life(self.life_of(message.token))
        return self.write(life._replace(deaths=life.deaths + 1)) if life else self

    def clear(self, worker: int, number: int) -> Ledger:
        """Return the ledger after a suspect's trial was over and its worker still lived."""
        return self._replace(cleared=tuple(sorted({*self.cleared, (worker, number)})))

    def belongs(self, token: str, root: str) -> Ledger:
        """Return the ledger with a publish assigned to a life."""
        pair = (origin(token), root)
        return self._replace(publishes=tuple(sorted({*self.publishes, pair})))


def origin(token: str) -> str:
    """Return the publish from which a token derives."""
    return re.split(r"[.'#]", token, maxsplit=1)[0]


def note(ledger: Ledger, facts: Iterable[Fact], rules: Rules, worker: int) -> Ledger:
    """Enter what one script did."""
    for fact in facts:
        if fact.kind == "accepted":
            ledger = _accepted(ledger, fact)
            continue
        life = ledger.life(ledger.life_of(fact.message.token))
        if life is None or is_consequence(fact.message.task):
            continue
        if fact.kind == "kept":
            ledger = _kept(ledger, str(fact.detail))
            continue
        if fact.kind == "started":
            ledger = _started(ledger, life, fact, rules)
        elif fact.kind == "saved":
            ledger = _saved(ledger, life, fact)
        elif fact.kind == "committed":
            ledger = _committed(ledger, life, fact.detail)
        elif fact.kind == "returned":
            ledger = _returned(ledger, life, fact, worker, rules)
        else:
            ledger = _over(ledger, life, fact)
    return ledger


def _saved(ledger: Ledger, life: Life, fact: Fact) -> Ledger:
    saved, last = fact.detail, life.saved
    assert isinstance(saved, Saved)
    if last and last[:3] == saved[:3] and last.count > saved.count:
        return ledger.breaks(f"LAW3 a checkpoint of {life.task} takes a later one's place")
    return ledger.write(life._replace(saved=saved))


def _started(ledger: Ledger, life: Life, fact: Fact, rules: Rules) -> Ledger:
    assert isinstance(fact.detail, tuple)
    generation, handed = fact.detail
    own = life.saved and life.saved.replacements == generation // REPLACED
    due = life.saved if own else None
    if handed != due:
        ledger = ledger.breaks(f"LAW1 {life.task} starts with checkpoint {handed}, not {due}")
    if life.exhausted or life.deaths > rules.max_resurrections:
        ledger = ledger.breaks(f"LAW6 {life.task} runs after {life.deaths} deaths of its own")
    if life.interruptions > rules.max_interruptions:
        ledger = ledger.breaks(f"LAW6 {life.task} runs after {life.interruptions} interruptions")
    if life.ends:
        ledger = ledger.breaks(f"LAW2 {life.task} runs after its end")
    return ledger


def _kept(ledger: Ledger, key: str) -> Ledger:
    if key in ledger.kept:
        ledger = ledger.breaks(f"LAW2 two runs with the key {key} succeeded")
    return ledger._replace(kept=tuple(sorted({*ledger.kept, key})))


def _over(ledger: Ledger, life: Life, fact: Fact) -> Ledger:
    """A life ended, died, was revived (as another) or discarded, or its letter was removed."""
    if fact.kind == "revived":
        fresh = ledger.life(str(fact.detail))
        assert fresh is not None, "a revival is accepted first"
        ledger = ledger.write(fresh._replace(saved=life.saved))
        return ledger.write(life._replace(letter=False))
    if fact.kind == "discarded":
        # Only what waits now is owed no end any more; an old copy says nothing about it.
        waits = not life.ends and fact.message.generation not in life.generations
        return ledger.write(life._replace(taken=True)) if fact.detail and waits else ledger
    if fact.kind == "removed":
        return ledger.write(life._replace(letter=False))
    letter = fact.kind == "dead"
    if life.ends and not fact.detail:
        # A copy of what cannot be read was buried after the first: one letter more, no end more.
        return ledger.write(life._replace(letter=True))
    if life.ends:
        ledger = ledger.breaks(f"LAW2 two ends for one life of {life.task}")
    return ledger.write(life._replace(ends=life.ends + 1, letter=letter))


def _accepted(ledger: Ledger, fact: Fact) -> Ledger:
    message, how = fact.message, fact.detail
    if is_consequence(message.task):
        if how == "new":
            return _sent(ledger, message.task)
        return ledger
    mine = ledger.life_of(message.token)
    if how == "new":
        if mine:
            return ledger.breaks(f"LAW2 publish {mine} of {message.task} lives twice")
        return ledger.belongs(message.token, message.token).write(Life(message.token, message.task))
    root = ledger.life_of(fact.root)
    if mine and mine != root:
        return ledger.breaks(f"LAW1 {message} followed on in another life of its id")
    ledger = ledger.belongs(message.token, root)
    life = ledger.life(root)
    if how in ("copy", "next") and life:
        ledger = ledger.write(life._replace(taken=False))
    return ledger


def _sent(ledger: Ledger, kid: str) -> Ledger:
    """A consequence was accepted. Ids that were drawn at random differ behind the '#' only."""
    if any(origin(life.task) == origin(kid) for life in ledger.lives):
        return ledger.breaks(f"LAW2 consequence {kid} accepted twice")
    return ledger.write(Life(kid, kid))


def _committed(ledger: Ledger, life: Life, outcome: object) -> Ledger:
    assert isinstance(outcome, Outcome)
    final = outcome.final in ("ended", "dead")
    if outcome.generation in life.generations:
        twice = f"generation {outcome.generation} of {life.task}"
        ledger = ledger.breaks(f"LAW2 {twice} committed twice")
    if final and life.finals:
        ledger = ledger.breaks(f"LAW2 two commits in one life of {life.task}")
    owed = (*life.owed, *(send.task for send in outcome.sends))
    return ledger.write(
        life._replace(
            generations=(*life.generations, outcome.generation),
            finals=life.finals + final,
            owed=tuple(sorted(owed)),
        )
    )


def _returned(ledger: Ledger, life: Life, fact: Fact, worker: int, rules: Rules) -> Ledger:
    if not fact.detail:
        return ledger
    running = dict(ledger.condemned).get(worker)
    suspect = rules.suspects(life.deaths, life.interruptions)
    sole = suspect and dict(ledger.suspected).get(worker) == 1
    if fact.detail == "own" and running is not None and running != 1 and not sole:
        return ledger.breaks(f"LAW6 {life.task} is blamed, {running} ran and may have done it")
    if fact.detail == "own" or running == 1:
        once_unnoticed = min(life.interruptions, rules.suspect_from) if suspect else 0
        charged = life.deaths + 1 + once_unnoticed
        exhausted = charged > rules.max_resurrections
        return ledger.write(life._replace(deaths=life.deaths + 1, exhausted=exhausted))
    return ledger.write(life._replace(interruptions=life.interruptions + 1))


def check(redis: Redis, ledger: Ledger) -> str:
    """Return the law that a state breaks: every record's task must be in exactly one place."""
    for record in redis.records:
        wrong = _misplaced(redis, record, ledger)
        if wrong:
            return wrong
    letters = {ledger.life_of(message.token) for _, message in redis.dead}
    for life in ledger.lives:
        if life.letter and life.root not in letters:
            return f"LAW1 the dead letter of a life of {life.task} is gone"
    seen, owners = set(), [claim.key for claim in redis.claims if claim.key]
    if len(set(owners)) < len(owners):
        return f"LAW2 two own the key {owners[0]} at once"
    for claim in redis.claims:
        if redis.entry(claim.worker) is None:
            return f"LAW1 claim of {claim.message.task} has no worker: nobody will reap it"
        if claim.started and not claim.outcome:
            if claim.message.task in seen:
                return f"LAW2 {claim.message.task} runs twice at once"
            seen.add(claim.message.task)
    return ""


def _misplaced(redis: Redis, record: Record, ledger: Ledger) -> str:
    task, state = record.task, record.state
    if state in (CONTINUED, ENDED, DEAD) and record.saved:
        return f"LAW1 {task} has ended, and its checkpoint stays"
    outcomes = [c.outcome for c in redis.claims if c.outcome and c.message.task == task]
    outcomes += [r.outcome for r in redis.replay if r.message.task == task]
    mine = [o for o in outcomes if (o.root, o.generation) == (record.root, record.generation)]
    if state == QUEUED:
        if mine:
            return f"LAW1 {task} is waiting and committed"
        life = ledger.life(ledger.life_of(record.root))
        if not _waits(redis, record) and not (life and life.taken):
            return f"LAW1 {task} is recorded as waiting and is nowhere"
    elif state == STARTED:
        claim = redis.claim(record.worker, record.number)
        if claim is None or not claim.started or claim.outcome or claim.message.task != task:
            return f"LAW1 {task} is recorded as started and no claim holds it"
    elif state == COMMITTED:
        if len(mine) != 1:
            return f"LAW1 {task} is recorded as committed, {len(mine)} outcomes wait"
    elif mine:
        assert state in (CONTINUED, ENDED, DEAD)
        return f"LAW1 {task} is recorded as acknowledged, and an outcome waits"
    return ""


def _waits(redis: Redis, record: Record) -> bool:
    """Tell whether a message waits that ``start`` would take for this record."""
    tokens = {
        known.token
        for known in record.tokens
        if known.root == record.root and known.generation >= record.generation
    }
    waiting = [*redis.queue, *redis.scheduled, *redis.kids, *redis.parked]
    waiting += [c.message for c in redis.claims if not c.started and not c.outcome]
    return any(message.token in tokens for message in waiting)


def settle(redis: Redis, ledger: Ledger) -> str:
    """Return the law that is broken when nothing more can happen."""
    held = (redis.claims, redis.queue, redis.replay, redis.scheduled, redis.kids, redis.parked)
    if any(held):
        return "LAW1 something is left that nobody will take up"
    tasks = {origin(life.task) for life in ledger.lives}
    for life in ledger.lives:
        if is_consequence(life.task) or life.taken:
            continue
        if life.ends != 1:
            return f"LAW1 {life.ends} ends for one life of {life.task}"
        missing = [kid for kid in life.owed if origin(kid) not in tasks]
        if missing:
            return f"LAW2 consequence {missing[0]} of {life.task} was never accepted"
    owed = [kid for life in ledger.lives for kid in life.owed]
    if len(set(owed)) < len(owed):
        return f"LAW2 {len(owed)} consequences were owed, {len(set(owed))} accepted"
    return ""
