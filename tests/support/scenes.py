"""Every script about to be called: what is there before, the call, and the keys that it touches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from relier.protocol.admission import Rules, Tenant
from relier.protocol.fingerprint import fingerprint
from relier.store import (
    checkpoints,
    claiming,
    forgetting,
    letters,
    locking,
    pausing,
    publishing,
    purging,
    reaping,
    running,
)
from relier.store.admission import Admission
from relier.store.operations import Operation
from relier.store.publishing import Outgoing
from relier.store.reaping import ReapRules
from relier.store.running import Kept, StoredResult
from relier.store.scripts import load
from support.bench import HOUR_MS, KEY, KEYS, Bench

Q, RECOVERY, RESULT = "one", "recovery", "celery-task-meta-a"
RULES = ReapRules(5, 15, 100, 0, RECOVERY, b"exhausted", b"exhausted")
KEPT = Kept(b"result", HOUR_MS)
WHO = claiming.Unread("a", "t-a")
CLAIMS = KEYS.claims(Q, "w")
IDEM = KEYS.idempotency(KEY)
PARKED = f"rl:{{two}}:parked:{KEY}"
LETTER = KEYS.dead_letter(Q, "a")
INDEX = (KEYS.groups(Q), KEYS.group(Q, fingerprint("", "unreadable", "")))

PAUSED = (KEYS.paused(Q), KEYS.paused("two"))  # whatever stands there pauses
STRINGS = (*PAUSED, KEYS.fence, KEYS.receipt("receipt"), KEYS.purge(Q, "batch"), RESULT)

# What a claimed task may be behind: a duplicate in another queue waits for its key.
OF_A_KEY = (IDEM, PARKED, "two", KEYS.bell("two"))


class Scene(NamedTuple):
    """One script about to be called.

    Args:
        name: the script's, and perhaps what is special.
        act: brings it about; returns the call.
        more: the keys that it touches and does not name.
        does_without: those beside which it does its work all the same, and leaves something else.
    """

    name: str
    act: Callable[[Bench], Operation[Any]]
    more: tuple[str, ...] = ()
    does_without: tuple[str, ...] = ()

    @property
    def script(self) -> str:
        return self.name.partition(":")[0]


def out(task: str, delay_ms: int = 0) -> Outgoing:
    return Outgoing(task, f"t-{task}", 0, "", delay_ms, "name", f"raw {task}")


def held(bench: Bench, task: str = "a") -> Any:
    bench.push(task, Q)
    return bench.claim(Q)


def started(bench: Bench, task: str = "a") -> Any:
    return bench.begin(task, Q, "")


def owning(bench: Bench) -> Any:
    claim = bench.begin("a", Q)
    bench.duplicate("b", "two")
    return claim


def committed(bench: Bench, task: str = "a") -> Any:
    claim = started(bench, task)
    assert bench.store.run(running.commit(KEYS, claim, task, "SUCCESS", b"outcome"))
    return claim


def saved(bench: Bench, task: str = "a") -> Any:
    """Start a task that has saved something in a file."""
    claim = started(bench, task)
    bench.store.run(checkpoints.reserve_file(KEYS, claim, task, "file", "home"))
    bench.redis.hset(KEYS.task(task), "cp", "0|1|1|1|9|filesystem:home/file")
    return claim


def start(bench: Bench, claim: Any, task: str = "a", key: str = "") -> Operation[Any]:
    return bench.start_operation(claim, task, key)


def enqueue_admitted(bench: Bench) -> Operation[Any]:
    rules = Rules(False, 60_000, 9, 5, 0, 100)
    return publishing.enqueue(KEYS, Q, [out("a")], Admission(rules, [Tenant("t", 5)], "|"))


def claim(bench: Bench) -> Operation[Any]:
    committed(bench, "c")
    bench.store.run(reaping.reap(KEYS, reaping.Suspect("w", "", ""), [Q], "dead", RULES))
    bench.hello("w")
    bench.push("a", Q)
    bench.store.run(publishing.enqueue(KEYS, Q, [out("b", HOUR_MS)]))
    bench.redis.zadd(KEYS.scheduled(Q), {"|raw b": 1})
    return claiming.claim(KEYS, "w", 1, [Q, "two"], 9, [""])


def start_busy(bench: Bench) -> Operation[Any]:
    started(bench)
    bench.redis.lpush(Q, "a copy of a")
    return start(bench, bench.claim(Q))


def start_later_generation(bench: Bench) -> Operation[Any]:
    started(bench)
    later = out("a")._replace(token="t-n", generation=1, raw="raw b")
    bench.store.run(publishing.enqueue(KEYS, Q, [later]))
    return bench.start_operation(bench.claim(Q), "a", "", token="t-n", generation=1)


def start_parks(bench: Bench) -> Operation[Any]:
    bench.begin("a", Q)
    bench.push("b", "two")
    return start(bench, bench.claim("two"), "b", KEY)


def start_again_parks(bench: Bench) -> Operation[Any]:
    bench.begin("a", Q)
    return start(bench, bench.begin("b", "two", ""), "b", KEY)


def start_paused(bench: Bench) -> Operation[Any]:
    claim = held(bench)
    bench.store.run(pausing.pause(KEYS, Q, "order", "me", "why"))
    return start(bench, claim)


def start_suspect(bench: Bench) -> Operation[Any]:
    bench.redis.hset(KEYS.worker("w"), mapping={"trial": f"|{10**14}|{CLAIMS}", "seen": 1})
    bench.push("a", Q)
    bench.redis.hset(KEYS.task("a"), "i", 3)
    return start(bench, bench.claim(Q))


def finish(bench: Bench) -> Operation[Any]:
    result = StoredResult(RESULT, 60, "value")
    return running.finish(KEYS, owning(bench), "a", "SUCCESS", result, KEPT)


def ack_next(bench: Bench, delay_ms: int = 0) -> Operation[Any]:
    message = out("a", delay_ms)._replace(token="t-n", generation=1)
    return running.ack_next(KEYS, committed(bench), "a", "two", message)


def ack_dead(bench: Bench) -> Operation[Any]:
    claim = saved(bench)
    assert bench.store.run(running.commit(KEYS, claim, "a", "FAILURE", b"outcome"))
    return running.ack_dead(KEYS, claim, "a", {"reason": "failed"})


def release(bench: Bench) -> Operation[Any]:
    returned = [claiming.Returned(owning(bench).number, "a")]
    returned.append(claiming.Returned(held(bench, "c").number, "c"))
    return claiming.release(KEYS, "w", Q, returned, "drain", stopped=True)


def reconcile(bench: Bench) -> Operation[Any]:
    held(bench)
    committed(bench, "b")
    bench.redis.hdel(CLAIMS, *[f for f in bench.redis.hkeys(CLAIMS) if f.startswith(b"s:")])
    return claiming.reconcile(KEYS, "w", 2, [Q, "two"], [])


def disown(bench: Bench) -> Operation[Any]:
    numbers = [owning(bench).number, committed(bench, "c").number]
    return claiming.disown(KEYS, "w", Q, numbers, "forgotten")


def discard(bench: Bench) -> Operation[Any]:
    ends = [claiming.Ended(held(bench, "b").number, claiming.Unread("b", "t-b"), "expired")]
    ends.append(claiming.Ended(held(bench).number, WHO, "expired"))
    return claiming.discard(KEYS, "w", Q, ends)


def bury(bench: Bench) -> Operation[Any]:
    saved_once(bench)
    return claiming.bury(KEYS, bench.claim(Q), WHO, "a", {"reason": "unreadable"})


def saved_once(bench: Bench) -> None:
    """Let a task wait again that has saved something."""
    returned = [claiming.Returned(saved(bench).number, "a")]
    bench.store.run(claiming.release(KEYS, "w", Q, returned, "drain", stopped=True))


def defer(bench: Bench, most: int = 9) -> Operation[Any]:
    saved_once(bench)
    letter = {"reason": "unregistered"}
    return claiming.defer(KEYS, bench.claim(Q), WHO, delay_ms=0, most_deferrals=most, letter=letter)


def reap(bench: Bench) -> Operation[Any]:
    owning(bench)
    held(bench, "c")
    committed(bench, "d")
    bench.redis.sadd(KEYS.queues, Q, "two")
    return reaping.reap(KEYS, reaping.Suspect("w", "", ""), [Q, "two"], "dead", RULES)


def reap_claim(bench: Bench, *deaths: str) -> Operation[Any]:
    claim = owning(bench)
    for each in deaths:
        bench.redis.hset(KEYS.task("a"), "b", each)
    return reaping.reap_claim(KEYS, claim, "killed", RULES)


def revive(bench: Bench) -> Operation[Any]:
    bench.store.run(bury(bench))
    return letters.revive(KEYS, Q, "a", out("a")._replace(token="t-new", expires_ms=HOUR_MS))


def purge_letters(bench: Bench) -> Operation[Any]:
    bench.store.run(bury(bench))
    at_ms = int(bench.redis.zscore(KEYS.dead(Q), "a"))
    return letters.purge(KEYS, Q, [("gone", 1), ("a", at_ms)], "old", "receipt")


def hasten(bench: Bench) -> Operation[Any]:
    bench.store.run(publishing.enqueue(KEYS, Q, [out("a", HOUR_MS)]))
    return publishing.hasten(KEYS, Q, "a", b"|raw a")


def purge_waiting(bench: Bench, delay_ms: int = 0) -> Operation[Any]:
    bench.store.run(publishing.enqueue(KEYS, Q, [out("a", delay_ms), out("b", delay_ms)]))
    bar = "|" if delay_ms else ""
    doomed = [
        purging.Doomed(f"{bar}raw {task}".encode(), task, f"t-{task}", 0, follows=task == "b")
        for task in "ab"
    ]
    suffix = None if delay_ms else ""
    return purging.purge(KEYS, Q, "batch", suffix, doomed, b"revoked")


def resume(bench: Bench) -> Operation[Any]:
    bench.store.run(pausing.pause(KEYS, Q, "order", "me", "why"))
    return pausing.resume(KEYS, Q)


def sweep(bench: Bench) -> Operation[Any]:
    claim = owning(bench)
    bench.redis.hdel(CLAIMS, claim.number, f"s:{claim.number}", f"k:{claim.number}")
    return reaping.sweep(KEYS, IDEM, ["two"])


def forget(bench: Bench) -> Operation[Any]:
    sweep(bench)
    return forgetting.forget(forgetting.IDEM, [IDEM], "orphans")


def unlock(bench: Bench) -> Operation[Any]:
    claim = started(bench)
    bench.store.run(locking.lock(KEYS, "pay", "token", HOUR_MS, claim))
    return locking.unlock(KEYS, "pay", "token", b"paid", HOUR_MS, claim)


def free_files(bench: Bench) -> Operation[Any]:
    saved(bench)
    return checkpoints.free_files(KEYS, ["other", "file"])


def count_part(bench: Bench) -> Operation[Any]:
    chord = ["chord-j", "chord-t", "chord-s", "chord-relier", "chord-lease", "chord-header"]
    bench.redis.set("chord-s", 1)
    arguments = ["part", '["done"]', "zset", 1, 60, 60, "us", 60]
    return Operation(load("count_part"), chord, arguments, str)


def close_chord(bench: Bench) -> Operation[Any]:
    bench.redis.set("chord-lease", "us")
    bench.redis.sadd("chord-relier", "part")
    chord = ["chord-j", "chord-t", "chord-s", "chord-relier", "chord-lease"]
    return Operation(load("close_chord"), chord, ["us", 300, "0"], int)


def terminate(bench: Bench) -> Operation[Any]:
    bench.redis.hset(KEYS.worker("w"), "stops", 1)
    return running.terminate(KEYS, started(bench), "a")


def beat(bench: Bench) -> Operation[Any]:
    bench.store.run(terminate(bench))
    tags = bench.store.run(claiming.beat(KEYS, "w", {})).stop
    return claiming.beat(KEYS, "w", {}, tags)


RECORDS = tuple(KEYS.task(task) for task in "abcd")
SCENES = [
    Scene("hello", lambda _: claiming.hello(KEYS, "new", {"epoch": 1})),
    Scene("beat", beat),
    Scene("goodbye", lambda _: claiming.goodbye(KEYS, "w", [Q])),
    Scene("drain", lambda _: claiming.drain(KEYS, "w", "order")),
    Scene("drained", lambda _: claiming.drained(KEYS, "w", Q, [1, 0, 0, 0])),
    Scene("enqueue", lambda _: publishing.enqueue(KEYS, Q, [out("a"), out("b", HOUR_MS)])),
    Scene("enqueue: admitted", enqueue_admitted),
    Scene("claim", claim),
    Scene("start", lambda b: start(b, held(b), key=KEY), (IDEM,)),
    Scene("start: a copy", start_busy),
    Scene("start: too early", start_later_generation, (CLAIMS,)),
    Scene("start: parks", start_parks, (*OF_A_KEY, CLAIMS)),
    Scene("start: parks when asked again", start_again_parks, (*OF_A_KEY, CLAIMS)),
    Scene("start: a suspect", start_suspect),
    Scene("start: paused", start_paused),
    Scene("pause", lambda _: pausing.pause(KEYS, Q, "order", "me", "why")),
    Scene("resume", resume),
    Scene("hasten", hasten),
    Scene("terminate", terminate),
    Scene("bind", lambda _: publishing.bind(KEYS, "table", "tables", "member", "x", 9)),
    Scene("checkpoint", lambda b: checkpoints.checkpoint(KEYS, started(b), "a", 1, 2, b"{}")),
    Scene("reserve_file", lambda b: checkpoints.reserve_file(KEYS, started(b), "a", "f", "home")),
    Scene("overtime", lambda b: running.overtime(KEYS, started(b), "a", "soft")),
    Scene("revoke", lambda _: running.revoke(KEYS, "a")),
    Scene("finish", finish, OF_A_KEY, (IDEM,)),
    Scene(
        "commit",
        lambda b: running.commit(KEYS, owning(b), "a", "SUCCESS", b"outcome", KEPT),
        OF_A_KEY,
        (IDEM,),
    ),
    Scene("ack", lambda b: running.ack(KEYS, committed(b), "a")),
    Scene("ack: next", ack_next),
    Scene("ack: next, later", lambda b: ack_next(b, HOUR_MS)),
    Scene("ack: dead", ack_dead, (), (LETTER,)),
    Scene("abandon", lambda b: running.abandon(KEYS, committed(b), "a", "failed")),
    Scene(
        "condemn",
        lambda b: running.condemn(KEYS, owning(b), "a", "hard timeout", b"outcome"),
        OF_A_KEY,
    ),
    Scene("release", release, (*OF_A_KEY, *RECORDS)),
    Scene("requeue", lambda b: claiming.requeue(KEYS, held(b))),
    Scene("reconcile", reconcile),
    Scene("disown", disown, (*OF_A_KEY, *RECORDS)),
    Scene("discard", discard, (), RECORDS),
    Scene("bury", bury, INDEX, (LETTER, *INDEX)),
    Scene("defer", defer),
    Scene("defer: the last time", lambda b: defer(b, 0), (), (LETTER,)),
    Scene("reap", reap, (*OF_A_KEY, *RECORDS), (CLAIMS,)),
    Scene("reap_claim", reap_claim, (*OF_A_KEY, *RECORDS)),
    Scene("reap_claim: later", lambda b: reap_claim(b, "2"), (*OF_A_KEY, *RECORDS)),
    Scene("reap_claim: exhausted", lambda b: reap_claim(b, "9"), (*OF_A_KEY, *RECORDS)),
    Scene("reap_claim: unstarted", lambda b: reaping.reap_claim(KEYS, held(b), "killed", RULES)),
    Scene("revive", revive, INDEX, INDEX),
    Scene("purge_letters", purge_letters, INDEX, (LETTER, *INDEX)),
    Scene("purge_waiting", purge_waiting),
    Scene("purge_waiting: later", lambda b: purge_waiting(b, HOUR_MS)),
    Scene("sweep", sweep, (*OF_A_KEY, CLAIMS)),
    Scene("forget", forget, (*OF_A_KEY, CLAIMS), (IDEM,)),
    Scene("lock", lambda b: locking.lock(KEYS, "pay", "t", HOUR_MS, started(b)), (CLAIMS,)),
    Scene("unlock", unlock, (CLAIMS,)),
    Scene("free_files", free_files, RECORDS[:1], RECORDS[:1]),
    Scene("count_part", count_part),
    Scene("close_chord", close_chord),
]
