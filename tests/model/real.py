"""The real scripts, called as the model's are: same names, same arguments, same verdicts.

``RealScripts`` runs them on a server and reads back what the server holds as the model's ``Redis``,
so that a test can put both side by side. What the two name differently (claim numbers, lives,
dead letters) is translated here.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from model.lives import failure
from model.rules import RIGHT, Rules
from model.state import (
    ENDED,
    REPLACED,
    STARTED,
    Claim,
    Entry,
    Key,
    Known,
    Message,
    Outcome,
    Record,
    Redis,
    Replay,
    Saved,
    derive,
    is_consequence,
    key_of,
)
from relier.protocol.identity import Claim as RealClaim
from relier.protocol.identity import Identity
from relier.store import checkpoints, claiming, letters, publishing, reaping, running
from relier.store.client import Store
from relier.store.publishing import Outgoing

QUEUE, KIDS = "fuzz", "kids"
"""The queue of the tasks, and that of what follows from them."""

_HOUR_MS = 3_600_000
_FAR_MS = 10**14
_FAILURE = b"failure"
"""An outcome that was made by somebody who never saw the task: Phoenix, or its worker's main."""


class RealScripts:
    """One server, its scripts, and what the translation needs to remember.

    Args:
        store: an empty database.
        rules: the limits to give the scripts.
    """

    def __init__(self, store: Store, rules: Rules = RIGHT) -> None:
        self.store = store
        self.keys = store.keys
        self._redis: Any = store.redis
        self._numbers: dict[int, RealClaim] = {}
        self._models: dict[tuple[str, str], int] = {}
        self._messages: dict[int, Message] = {}
        self._outcomes: dict[int, Outcome] = {}
        self._workers: dict[int, None] = {}
        self._tasks: dict[str, None] = {}
        self._roots: dict[tuple[str, str], str] = {}
        self._letters: dict[str, str] = {}
        self._done: set[int] = set()
        self._present: set[str] = set()
        self._receipts = itertools.count()
        self._reap_rules = reaping.ReapRules(
            max_resurrections=rules.max_resurrections,
            max_interruptions=rules.max_interruptions,
            batch_size=1,
            max_queue_depth=0,
            recovery_queue="",
            exhausted_blame=_FAILURE,
            exhausted_interruptions=_FAILURE,
        )

    # The scripts.

    def hello(self, worker: int) -> bool:
        """See ``model.hello``."""
        self._workers[worker] = None
        return self.store.run(claiming.hello(self.keys, _name(worker), {"epoch": 1}))

    def beat(self, worker: int) -> bool:
        """See ``model.beat``."""
        return self.store.run(claiming.beat(self.keys, _name(worker), {})).alive

    def goodbye(self, worker: int) -> bool:
        """See ``model.goodbye``."""
        return self.store.run(claiming.goodbye(self.keys, _name(worker), [QUEUE]))

    def enqueue(self, message: Message, delayed: bool = False) -> str:
        """See ``model.enqueue``."""
        out = self._outgoing(message, _HOUR_MS if delayed else 0)
        [verdict] = self.store.run(publishing.enqueue(self.keys, _queue(message), [out]))
        return {0: "known", 1: "queued", 2: "scheduled"}[verdict]

    def claim(self, worker: int, epoch: int, numbers: Sequence[int]) -> object:
        """See ``model.claim``."""
        harvest = self.store.run_once(
            claiming.claim(self.keys, _name(worker), epoch, [QUEUE], len(numbers), [""])
        )
        if harvest.refused:
            return harvest.refused
        taken = []
        for number, claimed in zip(numbers, harvest.claimed, strict=False):
            message = _message(claimed.raw)
            self._numbers[number] = claimed.claim
            self._models[claimed.claim.worker, claimed.claim.number] = number
            self._messages[number] = message
            if claimed.outcome is not None:
                self._outcomes[number] = _outcome(claimed.outcome, message, "", 0)
            taken.append((number, message, claimed.outcome is not None, claimed.replays))
        return tuple(taken)

    def start(
        self, worker: int, number: int, patient: bool = True, keyed: bool = True
    ) -> tuple[Any, ...]:
        """See ``model.start``."""
        message = self._messages[number]
        identity = Identity(message.task, message.token, message.generation, "name")
        said = self.store.run(
            running.start(
                self.keys,
                self._numbers[number],
                identity,
                own_limit=None,
                max_resurrections=self._reap_rules.max_resurrections,
                idempotency_key=key_of(message.task) if keyed else "",
                trial=running.Trial(_HOUR_MS, _HOUR_MS, _HOUR_MS if patient else 0),
            )
        )
        if said.done:
            self._done.add(number)
            return ("done", said.root, said.generation)
        if said.verdict == "run":
            found = said.checkpoint
            saved = Saved(*json.loads(found.state or b"")) if found else None
            return (said.verdict, said.root, said.generation, saved)
        if said.verdict == "replay":
            return (said.verdict, said.root, said.generation)
        return (said.verdict,)

    def checkpoint(self, worker: int, number: int, count: int) -> int:
        """See ``model.checkpoint``; the state is what the model would call the checkpoint."""
        claim, task = self._about(number)
        generation = int(self._redis.hget(self.keys.task(task), "g") or 0)
        state = json.dumps(Saved(generation // REPLACED, worker, number, count)).encode()
        return self.store.run(
            checkpoints.checkpoint(self.keys, claim, task, count, len(state), state)
        )

    def finish(self, worker: int, number: int, outcome: Outcome) -> bool:
        """See ``model.finish``."""
        claim, task = self._about(number)
        kept = self._kept(number, outcome)
        return bool(self.store.run(running.finish(self.keys, claim, task, "SUCCESS", None, kept)))

    def commit(self, worker: int, number: int, outcome: Outcome) -> bool:
        """See ``model.commit``."""
        claim, task = self._about(number)
        saved = _bytes(outcome)
        kept = self._kept(number, outcome)
        done = bool(self.store.run(running.commit(self.keys, claim, task, "SUCCESS", saved, kept)))
        if done:
            self._outcomes.setdefault(number, outcome)
        return done

    def ack(self, worker: int, number: int) -> bool:
        """See ``model.ack``."""
        claim, task = self._about(number)
        outcome = self._outcomes.get(number)
        if outcome is None or outcome.final == "ended":
            return self.store.run(running.ack(self.keys, claim, task))
        if outcome.final == "dead":
            letter = {"reason": "failed", "name": "name"}
            return self.store.run(running.ack_dead(self.keys, claim, task, letter))
        if outcome.follower is None:
            return self.store.run(running.ack_continued(self.keys, claim, task))
        follower = self._outgoing(outcome.follower, 0)
        return self.store.run(running.ack_next(self.keys, claim, task, QUEUE, follower))

    def abandon(self, worker: int, number: int) -> bool:
        """See ``model.abandon``."""
        claim, task = self._about(number)
        return self.store.run(running.abandon(self.keys, claim, task, "send failed"))

    def release(self, worker: int, number: int, stopped: bool = False) -> int:
        """See ``model.release``."""
        claim, task = self._about(number)
        returned = [claiming.Returned(claim.number, task)]
        said = self.store.run(
            claiming.release(self.keys, claim.worker, QUEUE, returned, "drain", stopped=stopped)
        )
        return sum(map(bool, said.values()))

    def discard(self, worker: int, number: int, reason: str) -> int:
        """See ``model.discard``."""
        claim, _ = self._about(number)
        ended = [claiming.Ended(claim.number, self._unread(number), reason)]
        return self.store.run(claiming.discard(self.keys, claim.worker, QUEUE, ended))

    def bury(self, worker: int, number: int) -> bool:
        """See ``model.bury``."""
        claim, task = self._about(number)
        letter = {"reason": "unreadable"}
        return self.store.run(claiming.bury(self.keys, claim, self._unread(number), task, letter))

    def defer(self, worker: int, number: int, last: bool) -> str:
        """See ``model.defer``."""
        claim, _ = self._about(number)
        return self.store.run(
            claiming.defer(
                self.keys,
                claim,
                self._unread(number),
                delay_ms=0,
                most_deferrals=0 if last else 1000,
                letter={"reason": "unknown-task"},
            )
        )

    def reconcile(self, worker: int, epoch: int, held: Sequence[int]) -> int:
        """See ``model.reconcile``."""
        numbers = [self._numbers[number].number for number in held]
        return self.store.run(claiming.reconcile(self.keys, _name(worker), epoch, [QUEUE], numbers))

    def reap(self, worker: int, judged_beat: int, batch: int = 1) -> str:
        """See ``model.reap``."""
        suspect = reaping.Suspect(_name(worker), str(judged_beat) if judged_beat else "", "")
        rules = self._reap_rules._replace(batch_size=batch)
        return self.store.run(reaping.reap(self.keys, suspect, [QUEUE, KIDS], "dead", rules)).status

    def reap_claim(self, worker: int, number: int) -> str:
        """See ``model.reap_claim``."""
        claim, _ = self._about(number)
        return self.store.run(
            reaping.reap_claim(self.keys, claim, "killed", self._reap_rules)
        ).verdict

    def condemn(self, worker: int, number: int) -> bool:
        """See ``model.condemn``."""
        claim, task = self._about(number)
        return self.store.run(running.condemn(self.keys, claim, task, "hard-timeout", _FAILURE))

    def revive(self, letter: str, message: Message) -> int:
        """See ``model.revive``."""
        real = self._letters[letter]
        out = self._outgoing(message, 0)
        return self.store.run(letters.revive(self.keys, QUEUE, real, out))

    def remove(self, letter: str) -> int:
        """See ``model.remove``; an operator has read the letter just before."""
        real = self._letters[letter]
        died_ms = int(self._redis.zscore(self.keys.dead(QUEUE), real) or 0)
        found = [(real, died_ms)]
        receipt = f"r{next(self._receipts)}"
        return self.store.run(letters.purge(self.keys, QUEUE, found, "asked", receipt)).letters

    def sweep(self) -> bool:
        """See ``model.sweep``."""
        operation = reaping.sweep(self.keys, self.keys.idempotency("K"), [QUEUE])
        return self.store.run(operation) == "done"

    # What happens to a queue without a script of ours.

    def copy(self, message: Message) -> None:
        """Put a message into its list as a stock producer, or a stock transport, does."""
        self._tasks[message.task] = None
        self._redis.lpush(self.keys.list(_queue(message)), _raw(message))

    def purge(self) -> None:
        """Take the first message away, as a stock worker does."""
        self._redis.rpop(self.keys.list(QUEUE))

    def fall_due(self, message: Message, worker: int, epoch: int) -> None:
        """Let a scheduled message's time come; a worker with no room asks, and promotes it."""
        self._redis.zadd(self.keys.scheduled(QUEUE), {b"|" + _raw(message): 1}, xx=True)
        self.store.run_once(claiming.claim(self.keys, _name(worker), epoch, [QUEUE], 0, [""]))

    def end_trial(self, worker: int) -> None:
        """Let the time of a worker's trials pass."""
        self._redis.hdel(self.keys.worker(_name(worker)), "trial")

    # What the server holds.

    def state(self) -> tuple[Redis, bool]:
        """Return all that the server holds, in the model's terms, and whether the bell was rung.

        A token of a life that has ended is told with its root only if that was seen in its time.

        The bell is silent again afterwards, and nothing that is scheduled falls due by itself.
        """
        keys, tasks, workers = self.keys, list(self._tasks), list(self._workers)
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.lrange(keys.list(QUEUE), 0, -1)
            pipe.lrange(keys.list(KIDS), 0, -1)
            pipe.lrange(keys.replay(QUEUE), 0, -1)
            pipe.zrange(keys.scheduled(QUEUE), 0, -1, withscores=True)
            pipe.zrange(keys.dead(QUEUE), 0, -1)
            pipe.hgetall(keys.idempotency("K"))
            pipe.lrange(f"{keys.prefix}rl:{{{QUEUE}}}:parked:K", 0, -1)
            pipe.smembers(keys.parked_keys)
            pipe.delete(keys.bell(QUEUE))
            for worker in workers:
                pipe.hgetall(keys.worker(_name(worker)))
                pipe.hgetall(keys.claims(QUEUE, _name(worker)))
            for task in tasks:
                pipe.hgetall(keys.task(task))
                pipe.pttl(keys.task(task))
            queue, kids, replay, scheduled, dead, key, parked, index, rung, *rest = pipe.execute()
        assert index or not parked, "no sweep would find what is parked"
        of_workers, of_tasks = rest[: 2 * len(workers)], rest[2 * len(workers) :]
        entries = dict(zip(workers, map(_texts, of_workers[::2]), strict=True))
        records = dict(zip(tasks, map(_texts, of_tasks[::2]), strict=True))
        for task, ttl_ms in zip(tasks, of_tasks[1::2], strict=True):
            assert ttl_ms != -1, f"the record of {task} would stay for ever"
        claims = zip(workers, of_workers[1::2], strict=True)
        self._pin(scheduled)
        redis = Redis(
            queue=tuple(_message(raw) for raw in reversed(queue)),
            scheduled=tuple(sorted(_parcel(parcel) for parcel, _ in scheduled)),
            replay=tuple(_replay(element) for element in reversed(replay)),
            claims=tuple(sorted(self._claims(claims), key=lambda claim: claim[:2])),
            workers=tuple(
                self._entry(worker, entries[worker])
                for worker in sorted(entries)
                if entries[worker]
            ),
            records=tuple(
                self._record(task, records[task])
                for task in sorted(records)
                if "s" in records[task]
            ),
            dead=self._dead(dead),
            kept=self._in_letters(dead),
            kids=tuple(_message(raw) for raw in reversed(kids)),
            keys=self._keys(_texts(key)),
            parked=tuple(_parcel(parcel) for parcel in parked),
        )
        return redis, bool(rung)

    def name_letters(self, model: Redis, real: Redis) -> None:
        """Learn which letter of the server is which of the model's."""
        present, kept, really_kept = dict(model.dead), dict(model.kept), dict(real.kept)
        self._present = {letter for letter in self._present if letter in present}
        named = {self._letters[letter] for letter in self._present}
        unnamed = [pair for pair in real.dead if pair[0] not in named]
        for letter, message in present.items():
            if letter not in self._present:
                found = next(
                    pair
                    for pair in unnamed
                    if pair[1] == message and really_kept.get(pair[0]) == kept.get(letter)
                )
                unnamed.remove(found)
                self._letters[letter] = found[0]
                self._present.add(letter)

    # Translation.

    def _kept(self, number: int, outcome: Outcome) -> running.Kept | None:
        task = self._messages[number].task
        if not key_of(task) or number in self._done or outcome.final != "ended":
            return None
        return running.Kept(b"result", _HOUR_MS)

    def _about(self, number: int) -> tuple[RealClaim, str]:
        return self._numbers[number], self._messages[number].task

    def _unread(self, number: int) -> claiming.Unread:
        message = self._messages[number]
        return claiming.Unread(message.task, message.token)

    def _outgoing(self, message: Message, delay_ms: int) -> Outgoing:
        self._tasks[message.task] = None
        raw = _raw(message)
        return Outgoing(message.task, message.token, message.generation, "", delay_ms, "name", raw)

    def _pin(self, scheduled: Sequence[tuple[bytes, float]]) -> None:
        near = {parcel: _FAR_MS for parcel, due_ms in scheduled if due_ms < _FAR_MS}
        if near:
            self._redis.zadd(self.keys.scheduled(QUEUE), near)

    def _claims(self, hashes: Iterable[tuple[int, Mapping[bytes, bytes]]]) -> Iterable[Claim]:
        for worker, fields in hashes:
            for field, parcel in fields.items():
                if not field.isdigit():
                    assert field[2:] in fields, f"{field!r} has outlived its claim"
                    continue
                message, saved = _parcel(parcel), fields.get(b"o:" + field)
                outcome, replays = None, 0
                if saved is not None:
                    count, generation, root, own = saved.split(b"|", 3)
                    outcome = _outcome(own, message, root.decode(), int(generation))
                    replays = int(count)
                number = self._models[_name(worker), field.decode()]
                started = b"s:" + field in fields
                owned = "K" if b"k:" + field in fields else ""
                yield Claim(worker, number, message, started, outcome, replays, owned)

    def _keys(self, fields: Mapping[str, str]) -> tuple[Key, ...]:
        if "w" in fields:
            number = self._models[fields["w"], fields["c"]]
            return (Key("K", int(fields["w"].removeprefix("w")), number),)
        return (Key("K", done=True),) if "v" in fields else ()

    def _entry(self, worker: int, fields: Mapping[str, str]) -> Entry:
        beat, dying = int(fields.get("beat", 0)), int(fields.get("dying", -1))
        trial = 0
        if "trial" in fields:
            claim = fields["trial"].partition("|")[0]
            trial = self._models[_name(worker), claim] if claim else -1
        return Entry(worker, int(fields["epoch"]), beat, dying, trial)

    def _record(self, task: str, fields: Mapping[str, str]) -> Record:
        self._roots[task, fields["l"]] = fields["rt"]
        tokens = []
        for name, value in fields.items():
            if name.startswith("t:"):
                life, _, generation = value.partition(":")
                tokens.append(Known(name[2:], int(generation), self._roots.get((task, life), "?")))
        worker, number = 0, 0
        if fields["s"] == STARTED:
            worker = int(fields["w"].removeprefix("w"))
            number = self._models[fields["w"], fields["c"]]
        return Record(
            task,
            fields["s"],
            int(fields["g"]),
            fields["rt"],
            tuple(sorted(tokens)),
            worker,
            number,
            int(fields.get("b", 0)),
            int(fields.get("i", 0)),
            _saved(fields.get("cp"), fields.get("cd")),
        )

    def _dead(self, names: Sequence[bytes]) -> tuple[tuple[str, Message], ...]:
        if not names:
            return ()
        with self._redis.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.hget(self.keys.dead_letter(QUEUE, name.decode()), "parcel")
            parcels = pipe.execute()
        return tuple(
            (name.decode(), _parcel(parcel)) for name, parcel in zip(names, parcels, strict=True)
        )

    def _in_letters(self, names: Sequence[bytes]) -> tuple[tuple[str, Saved], ...]:
        kept = []
        for name in names:
            letter = self.keys.dead_letter(QUEUE, name.decode())
            saved = _saved(*self._redis.hmget(letter, "cp", "cd"))
            if saved:
                kept.append((name.decode(), saved))
        return tuple(sorted(kept))


def ending(kind: str, message: Message, root: str, generation: int) -> Outcome:
    """Return what a body that ends in one way commits.

    Args:
        kind: "ok", "fail", "retry", "replace" (by a chord), or "bare" (nothing follows).
        root: as ``start`` told it, and so the generation.
    """
    if kind == "retry":
        token = derive(root, generation, "n")
        follower = Message(message.task, message.generation + 1, token)
        return Outcome("next", (), follower, root, generation)
    if kind == "replace":
        header = Message(f"h:{root}", generation, derive(root, generation, "h"))
        return Outcome("continued", (header,), None, root, generation)
    if kind == "bare":
        return Outcome("ended", (), None, root, generation)
    failed = failure(Record(message.task, ENDED, generation, root, ()), RIGHT)
    return failed if kind == "fail" else failed._replace(final="ended")


def seen(redis: Redis) -> Redis:
    """Return the model's state without what the server does not say, or says otherwise."""
    records = [
        record if record.state == STARTED else record._replace(worker=0, number=0)
        for record in redis.records
    ]
    return redis._replace(records=tuple(records), dead=(), kept=())


def letters_of(redis: Redis) -> list[tuple[Message, tuple[int, ...]]]:
    """Return the dead letters and their checkpoints, whatever their names."""
    kept = dict(redis.kept)
    return sorted((message, tuple(kept.get(letter) or ())) for letter, message in redis.dead)


def verdict_seen(verdict: object) -> object:
    """Return a verdict of the model as the server gives it: a claim does not tell the outcome."""
    if isinstance(verdict, tuple) and all(isinstance(each, Claim) for each in verdict):
        return tuple((c.number, c.message, c.outcome is not None, c.replays) for c in verdict)
    return verdict


def _saved(described: str | bytes | None, state: str | bytes | None) -> Saved | None:
    if described is None or state is None:
        assert described is state, "a checkpoint, or none"
        return None
    return Saved(*json.loads(state))


def _name(worker: int) -> str:
    return f"w{worker}"


def _queue(message: Message) -> str:
    return KIDS if is_consequence(message.task) else QUEUE


def _raw(message: Message) -> bytes:
    return json.dumps(message).encode()


def _message(raw: bytes) -> Message:
    return Message(*json.loads(raw))


def _parcel(parcel: bytes) -> Message:
    return _message(parcel.partition(b"|")[2])


def _bytes(outcome: Outcome) -> bytes:
    return json.dumps([outcome.final, outcome.sends, outcome.follower]).encode()


def _outcome(saved: bytes, message: Message, root: str, generation: int) -> Outcome:
    if saved == _FAILURE:
        return failure(Record(message.task, ENDED, generation, root, ()), RIGHT)
    final, sends, follower = json.loads(saved)
    own = Message(*follower) if follower else None
    return Outcome(final, tuple(Message(*send) for send in sends), own, root, generation)


def _replay(element: bytes) -> Replay:
    replays, generation, root, size, rest = element.split(b"|", 4)
    message = _parcel(rest[int(size) :])
    outcome = _outcome(rest[: int(size)], message, root.decode(), int(generation))
    return Replay(message, outcome, int(replays))


def _texts(fields: Mapping[bytes, bytes]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in fields.items()}
