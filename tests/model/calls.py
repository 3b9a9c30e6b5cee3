"""One call of one script: what it moves, what the ledger learns of it, and whether it is lawful."""

from __future__ import annotations

from typing import Any

from model import laws
from model.laws import Ledger
from model.model import (
    SCRIPTS,
    abandon,
    ack,
    bury,
    checkpoint,
    commit,
    condemn,
    discard,
    finish,
    reap_claim,
    release,
    start,
)
from model.rules import Rules
from model.state import Claim, Message, Redis, Reply
from model.world import UP, Packet, State, World

NAMES_A_CLAIM = {
    script.__name__
    for script in (
        start, checkpoint, finish, commit, ack, abandon, release, discard, reap_claim, condemn,
        bury,
    )
}  # fmt: skip
"""Scripts whose first arguments are a worker and a claim number."""


def call(s: State, packet: Packet, world: World, rules: Rules) -> tuple[State, Any]:
    """Run a script on the server; the state after it, and its verdict."""
    args = packet.args
    if packet.script == "claim":
        args = (*args, (_fresh_number(s, args[0]),))
    reply = SCRIPTS[packet.script](s.redis, rules, *args)
    ledger, worker = s.ledger, 0
    if packet.script == "reap" and reply.redis != s.redis:
        worker = args[0]
        ledger = _condemn(s, worker, rules)
    for fact in reply.facts:
        if fact.kind == "returned" and fact.detail and not _had_started(s, fact.message):
            ledger = ledger.breaks(f"LAW5 {fact.message} is blamed and had not started")
    ledger = laws.note(ledger, reply.facts, rules, worker)
    if world.audit:
        ledger = _audit(s.redis, packet.script, args, reply, rules, ledger)
    return s._replace(redis=reply.redis, ledger=ledger), reply.verdict


def _had_started(s: State, message: Message) -> bool:
    return any(c.started for c in s.redis.claims if c.message == message)


def _is_suspect(ledger: Ledger, claim: Claim, rules: Rules) -> bool:
    life = ledger.life(ledger.life_of(claim.message.token))
    cleared = claim[:2] in ledger.cleared
    if life is None or cleared:
        return False
    return rules.suspects(life.deaths, life.interruptions)


def _condemn(s: State, worker: int, rules: Rules) -> Ledger:
    """Note how many tasks ran when a worker was condemned, whatever the script believes."""
    condemned = dict(s.ledger.condemned)
    if worker in condemned:
        return s.ledger
    mine = [c for c in s.redis.claims if c.worker == worker]
    running = [c for c in mine if c.started and not c.outcome]
    condemned[worker] = len(running)
    suspected = dict(s.ledger.suspected)
    suspected[worker] = sum(_is_suspect(s.ledger, c, rules) for c in running)
    ledger = s.ledger._replace(
        condemned=tuple(sorted(condemned.items())), suspected=tuple(sorted(suspected.items()))
    )
    if any(p.worker == worker and p.status == UP for p in s.processes):
        return ledger.breaks(f"LAW5 reap took from worker {worker}, which lives and beats")
    return ledger


def _audit(
    before: Redis, script: str, args: tuple[Any, ...], reply: Reply, rules: Rules, ledger: Ledger
) -> Ledger:
    """Check that a stale call changed nothing, and that the call may be repeated."""
    if script in NAMES_A_CLAIM:
        stale = not (before.alive(args[0]) and before.claim(*args[:2]))
        if stale and reply.redis != before:
            return ledger.breaks(f"LAW3 a stale {script} changed something")
    if script in ("claim", "reap", "beat", "sweep"):
        return ledger  # a claim is never repeated, a reap goes on, a beat counts
    again = SCRIPTS[script](reply.redis, rules, *args)
    if again.redis != reply.redis or again.facts:
        return ledger.breaks(f"LAW3 {script} asked again does something again")
    holds = script in NAMES_A_CLAIM and reply.redis.claim(*args[:2])
    if (holds or script == "finish") and again.verdict != reply.verdict:
        return ledger.breaks(f"LAW3 {script} asked again says something else")
    return ledger


def _fresh_number(s: State, worker: int) -> int:
    """Return the least claim number that nothing names.

    Numbers are only ever compared for equality, so one that nothing remembers is as good as new;
    counting on instead would make equal states look different.
    """
    used = {c.number for c in s.redis.claims if c.worker == worker}
    used |= {r.number for r in s.redis.records if r.worker == worker}
    kept = [r.saved for r in s.redis.records if r.saved] + [saved for _, saved in s.redis.kept]
    used |= {saved.number for saved in kept if saved.worker == worker}
    used |= {h.number for p in s.processes if p.worker == worker for h in p.held}
    for script, args in s.net:
        if args[0] != worker:
            continue
        if script in NAMES_A_CLAIM:
            used.add(args[1])
        elif script == "reconcile":
            used |= set(args[2])
    return next(number for number in range(1, len(used) + 2) if number not in used)
