"""What a publish is to the record of its id, and what ends a life: the decisions of the scripts."""

from __future__ import annotations

from model.rules import Rules
from model.state import (
    COMMITTED,
    CONTINUED,
    DEAD,
    ENDED,
    QUEUED,
    STARTED,
    Message,
    Outcome,
    Record,
    Redis,
    derive,
)


def new_life(record: Record | None, message: Message, rules: Rules) -> Record:
    kept = record.tokens if record and rules.tokens_outlive_life else ()
    fresh = Record(message.task, QUEUED, message.generation, message.token, kept)
    return fresh.learn(message.token, message.generation)


def accept(record: Record | None, message: Message, rules: Rules) -> tuple[str, Record]:
    """Return what a publish is to a record ("new", "next", "copy", "noop", "known")."""
    if record is None:
        return "new", new_life(None, message, rules)
    if record.knows(message.token):
        return "known", record
    newer = message.generation > record.generation
    if record.state in (ENDED, DEAD) and (rules.replaced_is_not_ended or not newer):
        return "new", new_life(record, message, rules)
    if newer:
        record = learn(record, message.token, message.generation, rules)
        if record.state != STARTED:
            record = record._replace(state=QUEUED, generation=message.generation)
        return "next", record
    if record.state == QUEUED:
        generation = record.generation if rules.copy_takes_generation else message.generation
        return "copy", learn(record, message.token, generation, rules)
    if rules.noop_keeps_token:
        record = learn(record, message.token, message.generation, rules)
    return "noop", record


def admit(
    redis: Redis, record: Record | None, message: Message, rules: Rules
) -> tuple[str, Record]:
    """Return whether a claimed message may run, and its record when it does (or is dropped)."""
    if record is None:
        return "run", new_life(None, message, rules)
    known = record.knows(message.token)
    generation = message.generation
    if known and rules.copy_takes_generation:
        generation = known.generation
    newer, older = generation > record.generation, generation < record.generation
    seen = record
    if not known and rules.noop_keeps_token:
        seen = learn(record, message.token, generation, rules)
    if known and known.root != record.root and rules.token_knows_its_life:
        return "drop", record
    if record.state in (ENDED, DEAD) and (rules.replaced_is_not_ended or not newer):
        if known and rules.ended_copy_dropped:
            return "drop", record
        return "run", new_life(record, message, rules)
    if record.state in (COMMITTED, CONTINUED) and not newer and _blocks(redis, record, rules):
        return "drop", seen
    if record.state == STARTED and rules.started_copy_dropped:
        return ("busy", record) if newer else ("drop", seen)
    if older:
        return "drop", seen
    adopted = learn(record, message.token, generation, rules)
    return "run", adopted._replace(generation=generation)


def _blocks(redis: Redis, record: Record, rules: Rules) -> bool:
    if rules.committed_copy_dropped:
        return True
    return any(c.outcome and c.message.task == record.task for c in redis.claims)


def learn(record: Record, token: str, generation: int, rules: Rules) -> Record:
    if not rules.record_keeps_all_tokens:
        record = record._replace(tokens=())
    return record.learn(token, generation)


def end_unstarted(redis: Redis, rules: Rules, message: Message, state: str) -> tuple[Redis, int]:
    """End a task by a message that will never start; and which generation the message was.

    An old copy says nothing about the generation that waits now.
    """
    record = redis.record(message.task)
    if record is None:
        return redis, message.generation
    known = record.knows(message.token)
    generation = known.generation if known else message.generation
    current = known and (known.root, generation) == (record.root, record.generation)
    if record.state == QUEUED and (current or not rules.old_copy_ends_nothing):
        redis = redis.with_record(record._replace(state=state))
    return redis, generation


def state_after(outcome: Outcome, rules: Rules) -> str:
    if outcome.final == "dead":
        return DEAD
    if outcome.final == "continued" and rules.replaced_is_not_ended:
        return CONTINUED
    return ENDED


def failure(record: Record, rules: Rules) -> Outcome:
    """Return the outcome of a task for which somebody else must speak."""
    return Outcome("dead", (consequence(record, rules),), None, record.root, record.generation)


def consequence(record: Record, rules: Rules) -> Message:
    """Return what every life of a task publishes when it is over."""
    root = record.root if rules.kid_token_per_life else record.task
    return Message(f"k:{root}", 0, derive(root, 0, "k"))
