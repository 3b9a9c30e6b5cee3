"""The protocol, one pure function per script: ``script(redis, rules, ...) -> Reply``.

Names and verdicts are those of the real scripts. One that refuses returns the server as it was.
"""

from __future__ import annotations

from collections.abc import Sequence

from model.lives import (
    accept,
    admit,
    end_unstarted,
    failure,
    learn,
    new_life,
    state_after,
)
from model.rules import Rules
from model.state import (
    COMMITTED,
    DEAD,
    ENDED,
    QUEUED,
    REPLACED,
    STARTED,
    Claim,
    Entry,
    Fact,
    Key,
    Message,
    Outcome,
    Record,
    Redis,
    Replay,
    Reply,
    Saved,
    key_of,
)


def hello(redis: Redis, rules: Rules, worker: int) -> Reply:
    """Create a worker's entry, under an id never used before."""
    if redis.entry(worker):
        return Reply(redis, True)
    return Reply(redis.with_entry(Entry(worker)), True)


def beat(redis: Redis, rules: Rules, worker: int) -> Reply:
    """Say that a worker lives; False when it must go on under a new id."""
    entry = redis.entry(worker)
    if entry is None or entry.dying >= 0:
        return Reply(redis, False)
    return Reply(redis.with_entry(entry._replace(beat=entry.beat + 1)), True)


def goodbye(redis: Redis, rules: Rules, worker: int) -> Reply:
    """Remove the entry of a worker that holds nothing."""
    if any(claim.worker == worker for claim in redis.claims):
        return Reply(redis, False)
    return Reply(redis.without_entry(worker), True)


def enqueue(redis: Redis, rules: Rules, message: Message, delayed: bool = False) -> Reply:
    """Accept a message: "queued", "scheduled" or "known" (nothing to do)."""
    how, record = accept(redis.record(message.task), message, rules)
    if how == "known":
        return Reply(redis, "known")
    fact = Fact("accepted", message, how, record.root)
    redis = redis.with_record(record)
    if how == "noop":
        return Reply(redis, "known", (fact,))
    if delayed:
        return Reply(redis.schedule(message), "scheduled", (fact,))
    return Reply(redis.push(message), "queued", (fact,))


def claim(redis: Redis, rules: Rules, worker: int, epoch: int, numbers: Sequence[int]) -> Reply:
    """Move waiting messages into a worker's claims; the claims, or why not ("gone", "epoch").

    Args:
        numbers: fresh claim numbers, one per message asked for.
    """
    entry = redis.entry(worker)
    if rules.claim_needs_entry and (entry is None or entry.dying >= 0):
        return Reply(redis, "gone")
    if rules.claim_names_epoch and entry and entry.epoch != epoch:
        return Reply(redis, "epoch")
    taken = []
    for number in numbers:
        if redis.replay:
            first = redis.replay[0]
            new = Claim(worker, number, first.message, False, first.outcome, first.replays)
            redis = redis._replace(replay=redis.replay[1:])
        elif redis.queue:
            new = Claim(worker, number, redis.queue[0])
            redis = redis._replace(queue=redis.queue[1:])
        else:
            break
        taken.append(new)
        redis = redis.with_claim(new)
    return Reply(redis, tuple(taken))


def start(
    redis: Redis,
    rules: Rules,
    worker: int,
    number: int,
    patient: bool = True,
    keyed: bool = True,
) -> Reply:
    """Begin a task.

    Args:
        patient: whether a suspect still waits for a worker in which no other is on trial.
        keyed: whether the task's key is known; if not, it is asked for by starting again.

    Returns:
        ("run", root, generation, checkpoint); ("replay", root, generation): it had committed, send
        its consequences; ("done", root, generation): commit the result of an earlier run with its
        key; ("parked",): the same call runs, the message waits; ("stale",): run nothing;
        ("drop",): a copy, its claim is ended here;
        ("busy",): an earlier generation runs, or another suspect is on trial; it comes again.
    """
    mine = _mine(redis, worker, number)
    if mine is None:
        return Reply(redis, ("stale",))
    message = mine.message
    before = redis.record(message.task)
    if mine.outcome:
        return Reply(redis, ("replay", mine.outcome.root, mine.outcome.generation))
    key = redis.key(key_of(message.task) if keyed else "")
    done = key.done and not mine.key and rules.done_key_not_run
    if mine.started and before:
        return _start_again(redis, rules, mine, before, key, done)
    verdict, record = admit(redis, before, message, rules)
    if verdict == "run" and _is_owned(redis, key) and rules.busy_key_parks:
        parked = redis.without_claim(mine)._replace(parked=(*redis.parked, message))
        return Reply(parked, ("parked",))
    entry = redis.entry(worker)
    assert entry is not None, "a claim has a worker"
    on_trial = _on_trial(redis, entry)
    if verdict == "run" and rules.suspects(record.blame, record.interruptions):
        if on_trial and patient and rules.suspects_run_apart:
            verdict = "busy"
        else:
            several = on_trial and rules.suspects_run_apart
            entry = entry._replace(trial=-1 if several else number)
    facts: tuple[Fact, ...] = ()
    if before is None or not before.knows(message.token):
        how = "new" if before is None or record.root != before.root else "copy"
        if verdict == "drop":
            how = "noop"
        if verdict != "busy":
            facts = (Fact("accepted", message, how, record.root),)
    elif record.root != before.root:
        facts = (Fact("accepted", message, "new", record.root),)
    if verdict == "drop":
        return Reply(redis.without_claim(mine).with_record(record), ("drop",), facts)
    if verdict == "busy":
        return Reply(redis.without_claim(mine).schedule(message), ("busy",))
    saved = record.saved
    if saved and not _same_work(saved.replacements, record.generation, rules):
        saved = None
    record = record._replace(state=STARTED, worker=worker, number=number, saved=saved)
    mine = mine._replace(started=True)
    if key.name and not done:
        mine = mine._replace(key=key.name)
        redis = redis.with_key(key._replace(worker=worker, number=number))
    redis = redis.with_claim(mine).with_record(record).with_entry(entry)
    facts += (Fact("started", message, (record.generation, saved), record.root),)
    told = (record.root, record.generation)
    return Reply(redis, ("done", *told) if done else ("run", *told, saved), facts)


def _start_again(
    redis: Redis, rules: Rules, mine: Claim, record: Record, key: Key, done: bool
) -> Reply:
    """Say the same as the first time; a key that was not known then is asked for now."""
    told = (record.root, record.generation)
    if key.name and not mine.key and not done:
        if _is_owned(redis, key) and rules.busy_key_parks:
            waiting = record._replace(state=QUEUED, worker=0, number=0)
            redis = redis.without_claim(mine).with_record(waiting)
            return Reply(redis._replace(parked=(*redis.parked, mine.message)), ("parked",))
        redis = redis.with_claim(mine._replace(key=key.name))
        redis = redis.with_key(key._replace(worker=mine.worker, number=mine.number))
    return Reply(redis, ("done", *told) if done else ("run", *told, record.saved))


def checkpoint(redis: Redis, rules: Rules, worker: int, number: int, count: int) -> Reply:
    """Keep what a started task has done so far: 1, or 0 when its claim is stale.

    Args:
        count: which one under this claim, from 1.
    """
    mine = _mine(redis, worker, number)
    if mine is None and not rules.checkpoint_names_claim:
        mine = next((c for c in redis.claims if c.started), None)
    if mine is None or not mine.started or mine.outcome:
        return Reply(redis, 0)
    record = redis.record(mine.message.task)
    assert record is not None, "a started task has a record"
    last = record.saved
    same = last is not None and (last.worker, last.number) == (worker, number)
    if last and same and (last.count > count and rules.late_checkpoint_ignored):
        return Reply(redis, 1)
    if last and same and last.count == count:
        return Reply(redis, 1)
    saved = Saved(record.generation // REPLACED, worker, number, count)
    facts = (Fact("saved", mine.message, saved, record.root),)
    return Reply(redis.with_record(record._replace(saved=saved)), 1, facts)


def finish(redis: Redis, rules: Rules, worker: int, number: int, outcome: Outcome) -> Reply:
    """Commit and acknowledge in one step a task from which nothing follows."""
    mine = _mine(redis, worker, number)
    if mine is None or not mine.started or mine.outcome:
        asked_before = (ENDED, worker, number)
        return Reply(redis, asked_before in [(r.state, r.worker, r.number) for r in redis.records])
    record = redis.record(mine.message.task)
    assert record is not None, "a started task has a record"
    record = _dropped(record._replace(state=ENDED, worker=worker, number=number), rules)
    facts = (Fact("committed", mine.message, outcome), Fact("ended", mine.message, outcome))
    redis, more = _let_go(redis.without_claim(mine).with_record(record), rules, mine, outcome)
    return Reply(redis, True, facts + more)


def commit(redis: Redis, rules: Rules, worker: int, number: int, outcome: Outcome) -> Reply:
    """Save a started task's outcome beside its claim; from here on it never runs again."""
    mine = _mine(redis, worker, number)
    if mine is None or not (mine.started or mine.outcome):
        return Reply(redis, False)
    if mine.outcome:
        return Reply(redis, True)
    kept = mine._replace(outcome=outcome, key="")
    redis = _mark_committed(redis.with_claim(kept), mine.message)
    redis, more = _let_go(redis, rules, mine, outcome)
    return Reply(redis, True, (Fact("committed", mine.message, outcome), *more))


def ack(redis: Redis, rules: Rules, worker: int, number: int) -> Reply:
    """End a committed claim, whose consequences were all accepted; enqueue what follows on."""
    mine = _mine(redis, worker, number)
    if mine is None or mine.outcome is None:
        return Reply(redis, False)
    message, outcome = mine.message, mine.outcome
    redis, record = redis.without_claim(mine), redis.record(message.task)
    assert record is not None, "a committed task has a record"
    current = record.state == COMMITTED
    if rules.ack_names_its_life:
        current &= (record.root, record.generation) == (outcome.root, outcome.generation)
    if outcome.follower:
        return _follow(redis, rules, record, outcome, current)
    if outcome.final == "dead":
        saved = record.saved if current else None
        redis = _to_dead(redis, rules, message, outcome.root, saved)
    if current:
        record = _dropped(record._replace(state=state_after(outcome, rules)), rules)
        redis = redis.with_record(record)
    if outcome.final == "continued":
        return Reply(redis, True)
    return Reply(redis, True, (Fact(outcome.final, message, outcome),))


def abandon(redis: Redis, rules: Rules, worker: int, number: int) -> Reply:
    """Hand a committed task, whose consequences could not be sent, to whoever claims it next."""
    mine = _mine(redis, worker, number)
    if mine is None or mine.outcome is None:
        return Reply(redis, False)
    waiting = Replay(mine.message, mine.outcome, mine.replays + 1)
    return Reply(redis.without_claim(mine)._replace(replay=(*redis.replay, waiting)), True)


def release(redis: Redis, rules: Rules, worker: int, number: int, stopped: bool = False) -> Reply:
    """Give a claim back to the head of its queue; nothing is blamed. How many went back.

    Args:
        stopped: the process that ran it was stopped to hand it over; else a started claim stays.
    """
    mine = _mine(redis, worker, number)
    if mine is None or mine.outcome:
        return Reply(redis, 0)
    if mine.started:
        if rules.release_refuses_started and not stopped:
            return Reply(redis, 0)
        record = redis.record(mine.message.task)
        assert record is not None, "a started task has a record"
        redis = redis.with_record(record._replace(state=QUEUED, worker=0, number=0))
    redis = redis.without_claim(mine).push_head(mine.message)
    return Reply(_let_go(redis, rules, mine)[0], 1)


def discard(redis: Redis, rules: Rules, worker: int, number: int, reason: str) -> Reply:
    """End an unstarted claim with a named reason (revoked, expired)."""
    mine = _mine(redis, worker, number)
    if mine is None or mine.started or mine.outcome:
        return Reply(redis, 0)
    before = redis.record(mine.message.task)
    redis, generation = end_unstarted(redis.without_claim(mine), rules, mine.message, ENDED)
    redis, _ = _taken(redis, rules, before)
    message = mine.message._replace(generation=generation)
    return Reply(redis, 1, (Fact("discarded", message, reason),))


def reconcile(redis: Redis, rules: Rules, worker: int, epoch: int, held: Sequence[int]) -> Reply:
    """Raise the epoch and give back what the worker does not hold; how many, or -1: refused."""
    entry = redis.entry(worker)
    if entry is None or entry.dying >= 0 or epoch < entry.epoch:
        return Reply(redis, -1)
    redis = redis.with_entry(entry._replace(epoch=epoch))
    returned = 0
    for mine in reversed([c for c in redis.claims if c.worker == worker and c.number not in held]):
        if mine.started and rules.reconcile_spares_started:
            continue
        if mine.outcome and not rules.reconcile_returns_replays:
            continue
        redis = redis.without_claim(mine)
        if mine.outcome:
            redis = redis.replay_first(mine.message, mine.outcome, mine.replays)
        else:
            redis = redis.push_head(mine.message)
        returned += 1
    return Reply(redis, returned)


def reap(redis: Redis, rules: Rules, worker: int, judged_beat: int, batch: int = 1) -> Reply:
    """Move a batch of a dead worker's claims to where each continues: "done", "more", "alive"."""
    entry = redis.entry(worker)
    claims = [c for c in redis.claims if c.worker == worker]
    running = sum(c.started and not c.outcome for c in claims)
    incarnation_only = not rules.epoch_raised_in_place and entry is not None and entry.epoch > 1
    if entry and entry.dying < 0 and not incarnation_only:
        if rules.reap_names_beat and entry.beat != judged_beat:
            return Reply(redis, "alive")
        if rules.reap_marks_dying:
            entry = entry._replace(dying=running)
            redis = redis.with_entry(entry)
    alone = running
    if entry and entry.dying >= 0 and rules.alone_judged_once:
        alone = entry.dying
    facts: list[Fact] = []
    sole = _on_trial(redis, entry) if entry else 0
    for mine in reversed(claims[-batch:]):
        blame = "own" if alone == 1 or mine.number == sole else "whole"
        redis, _, some = _give_back(redis, rules, mine, blame)
        redis, _ = _let_go(redis, rules, mine)
        facts += some
    if len(claims) > batch:
        return Reply(redis, "more", tuple(facts))
    if not incarnation_only:
        redis = redis.without_entry(worker)
    return Reply(redis, "done", tuple(facts))


def reap_claim(redis: Redis, rules: Rules, worker: int, number: int) -> Reply:
    """Take back one claim whose process died; the verdicts of ``_give_back``, or "gone".

    An unstarted one waits a moment: its message may kill whoever unpacks it.
    """
    mine = _mine(redis, worker, number)
    if mine is None:
        return Reply(redis, "gone")
    if not (mine.started or mine.outcome):
        return Reply(redis.without_claim(mine).schedule(mine.message), "unstarted")
    redis, verdict, facts = _give_back(redis, rules, mine, "own")
    redis, _ = _let_go(redis, rules, mine)
    return Reply(redis, verdict, tuple(facts))


def condemn(redis: Redis, rules: Rules, worker: int, number: int) -> Reply:
    """Commit a failure for a started task whose process was stopped, unless it had committed."""
    mine = _mine(redis, worker, number)
    if mine is None or not mine.started or mine.outcome:
        return Reply(redis, False)
    redis, facts = _fail(redis.without_claim(mine), rules, mine.message)
    return Reply(_let_go(redis, rules, mine)[0], True, tuple(facts))


def bury(redis: Redis, rules: Rules, worker: int, number: int) -> Reply:
    """Send a message that cannot be run to the dead letters, as it came."""
    mine = _mine(redis, worker, number)
    if mine is None or mine.started or mine.outcome:
        return Reply(redis, False)
    redis, record = redis.without_claim(mine), redis.record(mine.message.task)
    root = record.root if record else mine.message.token
    redis, _ = end_unstarted(redis, rules, mine.message, DEAD)
    redis, saved = _taken(redis, rules, record)
    redis = _to_dead(redis, rules, mine.message, root, saved)
    return Reply(redis, True, (Fact("dead", mine.message, "", root),))


def defer(redis: Redis, rules: Rules, worker: int, number: int, last: bool) -> Reply:
    """Put off a message that this worker cannot run but a newer one may.

    Args:
        last: it was put off often enough, and is buried.
    """
    if last:
        reply = bury(redis, rules, worker, number)
        return reply._replace(verdict="buried" if reply.verdict else "stale")
    mine = _mine(redis, worker, number)
    if mine is None or mine.started or mine.outcome:
        return Reply(redis, "stale")
    return Reply(redis.without_claim(mine).schedule(mine.message), "deferred")


def revive(redis: Redis, rules: Rules, letter: str, message: Message) -> Reply:
    """Give a dead letter a new life, under a token of its own.

    Returns:
        1 released (also when asked again), 0 no such letter, -1 the task lives.
    """
    found = [each for each in redis.dead if each[0] == letter]
    record = redis.record(message.task)
    if record and record.knows(message.token):
        return Reply(redis, 1)
    if not found:
        return Reply(redis, 0)
    if rules.revive_spares_the_living and record and record.state not in (ENDED, DEAD):
        return Reply(redis, -1)
    record = new_life(record, message, rules)._replace(saved=dict(redis.kept).get(letter))
    redis = redis._replace(
        dead=tuple(each for each in redis.dead if each[0] != letter),
        kept=tuple(each for each in redis.kept if each[0] != letter),
    )
    facts = (
        Fact("accepted", message, "new", record.root),
        Fact("revived", found[0][1], message.token),
    )
    return Reply(redis.with_record(record).push(message), 1, facts)


def remove(redis: Redis, rules: Rules, letter: str) -> Reply:
    """Remove a dead letter for good, with what its task had saved; how many that were."""
    found = [each for each in redis.dead if each[0] == letter]
    redis = redis._replace(
        dead=tuple(each for each in redis.dead if each[0] != letter),
        kept=tuple(each for each in redis.kept if each[0] != letter),
    )
    return Reply(redis, len(found), tuple(Fact("removed", message) for _, message in found))


def sweep(redis: Redis, rules: Rules) -> Reply:
    """Wake the duplicates behind a key that nobody owns; whether none is left."""
    for key in redis.keys:
        if _is_owned(redis, key):
            return Reply(redis, False)
        redis = redis.with_key(key._replace(worker=0, number=0))
    return Reply(_wake(redis), True)


SCRIPTS = {
    script.__name__: script
    for script in (
        hello, beat, goodbye, enqueue, claim, start, checkpoint, finish, commit, ack, abandon,
        release, discard, reconcile, reap, reap_claim, condemn, bury, defer, revive, remove, sweep,
    )
}  # fmt: skip


def _mine(redis: Redis, worker: int, number: int) -> Claim | None:
    """Return a claim if its worker may still act on it."""
    return redis.claim(worker, number) if redis.alive(worker) else None


def _is_owned(redis: Redis, key: Key) -> bool:
    """Tell whether the claim that owns a key still runs."""
    claim = redis.claim(key.worker, key.number)
    return bool(claim and claim.started and not claim.outcome)


def _let_go(
    redis: Redis, rules: Rules, mine: Claim, outcome: Outcome | None = None
) -> tuple[Redis, tuple[Fact, ...]]:
    """End a claim's ownership of its key, with a result or without one, and wake who waits."""
    if not mine.key or not (rules.any_end_wakes or outcome):
        return redis, ()
    done = outcome is not None and outcome.final == "ended"
    facts = (Fact("kept", mine.message, mine.key),) if done else ()
    return _wake(redis.with_key(Key(mine.key, done=done))), facts


def _wake(redis: Redis) -> Redis:
    return redis._replace(queue=(*redis.parked, *redis.queue), parked=())


def _on_trial(redis: Redis, entry: Entry) -> int:
    """Return the claim on trial in a worker, -1 for several, 0 for none."""
    mine = redis.claim(entry.worker, entry.trial)
    return entry.trial if entry.trial < 0 or (mine and mine.started and not mine.outcome) else 0


def _same_work(replacements: int, generation: int, rules: Rules) -> bool:
    return replacements == generation // REPLACED or not rules.replaced_drops_checkpoint


def _dropped(record: Record, rules: Rules) -> Record:
    """Return a record without its checkpoint, which nobody needs any more."""
    return record._replace(saved=None) if rules.end_drops_checkpoint else record


def _taken(redis: Redis, rules: Rules, before: Record | None) -> tuple[Redis, Saved | None]:
    """Take the checkpoint out of a record that has just ended, if it has."""
    if before is None or before.state in (ENDED, DEAD):
        return redis, None
    record = redis.record(before.task)
    if record is None or record.state not in (ENDED, DEAD):
        return redis, None
    return redis.with_record(_dropped(record, rules)), record.saved


def _mark_committed(redis: Redis, message: Message) -> Redis:
    record = redis.record(message.task)
    assert record is not None, "a started task has a record"
    return redis.with_record(record._replace(state=COMMITTED, worker=0, number=0))


def _follow(redis: Redis, rules: Rules, record: Record, outcome: Outcome, current: bool) -> Reply:
    """Enqueue the next generation that a retry or a replace committed."""
    follower = outcome.follower
    assert follower is not None
    if record.knows(follower.token):
        return Reply(redis, True)
    generation = max(follower.generation, outcome.generation + 1)
    record = learn(record, follower.token, generation, rules)
    if current:
        same = rules.retry_keeps_checkpoint and (
            generation // REPLACED == outcome.generation // REPLACED
        )
        saved = record.saved if same else None
        record = record._replace(state=QUEUED, generation=generation, saved=saved)
    fact = Fact("accepted", follower, "next", record.root)
    return Reply(redis.with_record(record).push(follower), True, (fact,))


def _to_dead(
    redis: Redis, rules: Rules, message: Message, root: str, saved: Saved | None = None
) -> Redis:
    letter = f"{message.task}/{root}" if rules.letters_per_life else message.task
    while rules.letters_per_life and any(name == letter for name, _ in redis.dead):
        letter += "'"  # a copy that cannot be read either: nothing that came is thrown away
    others = [each for each in redis.dead if each[0] != letter]
    if saved and rules.letter_keeps_checkpoint:
        redis = redis._replace(kept=tuple(sorted([*redis.kept, (letter, saved)])))
    return redis._replace(dead=tuple(sorted([*others, (letter, message)])))


def _fail(redis: Redis, rules: Rules, message: Message) -> tuple[Redis, list[Fact]]:
    """Commit a failure; a worker will send what follows from it."""
    record = redis.record(message.task)
    assert record is not None, "a started task has a record"
    outcome = failure(record, rules)
    facts = [Fact("committed", message, outcome)]
    if not rules.failure_sends_consequences:
        redis = _to_dead(redis, rules, message, record.root)
        redis = redis.with_record(record._replace(state=DEAD, worker=0, number=0))
        return redis, [*facts, Fact("dead", message, outcome)]
    redis = _mark_committed(redis, message)
    return redis.replay_first(message, outcome, 0), facts


def _give_back(
    redis: Redis, rules: Rules, mine: Claim, blame: str
) -> tuple[Redis, str, list[Fact]]:
    """Move one claim to where it continues.

    Args:
        blame: "own" death of its process, or the death of the "whole" worker with others.

    Returns:
        The server, a verdict ("unstarted", "replay", "requeued", "scheduled", "exhausted"), facts.
    """
    message = mine.message
    redis = redis.without_claim(mine)
    if mine.outcome:
        return redis.replay_first(message, mine.outcome, mine.replays + 1), "replay", []
    if not mine.started:
        facts = [] if rules.unstarted_not_blamed else [Fact("returned", message, blame)]
        return redis.push_head(message), "unstarted", facts
    record = redis.record(message.task)
    assert record is not None, "a started task has a record"
    if blame == "own" and rules.own_death_blamed:
        record = record._replace(blame=record.blame + 1)
    elif blame:
        record = record._replace(interruptions=record.interruptions + 1)
    facts = [Fact("returned", message, blame, record.root)]
    saved = record.saved if rules.checkpoint_survives_death else None
    redis = redis.with_record(record._replace(state=QUEUED, worker=0, number=0, saved=saved))
    own = blame == "own" and rules.own_death_blamed
    charged = record.blame
    if own and rules.suspects(charged - 1, record.interruptions) and rules.interruptions_charged:
        charged += min(record.interruptions, rules.suspect_from)
    interrupted = record.interruptions > rules.max_interruptions and rules.interruptions_bounded
    if (own and charged > rules.max_resurrections) or (not own and interrupted):
        redis, more = _fail(redis, rules, message)
        return redis, "exhausted", facts + more
    if record.blame + record.interruptions <= 1:
        return redis.push_head(message), "requeued", facts
    return redis.schedule(message), "scheduled", facts
