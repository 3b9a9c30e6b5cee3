"""Suspects of having killed their workers: one on trial at a time, the likeliest first."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from relier.protocol.identity import Claim, Identity
from relier.store import claiming, publishing, running
from relier.store.address import Address
from relier.store.client import Store
from relier.store.embedded import EmbeddedServer
from relier.store.keys import Keys
from relier.store.publishing import Outgoing
from relier.store.running import Trial
from support.wait import wait_for

KEYS, QUEUE = Keys(), "trials"


@pytest.fixture
def store(server: EmbeddedServer) -> Iterator[Store]:
    made = Store(Address.parse(server.url), KEYS)
    made.redis.flushdb()
    made.run(claiming.hello(KEYS, "w", {"epoch": 1}))
    yield made
    made.close()


def _accuse(store: Store, task: str, ran_ms: int) -> None:
    """Put a task into the queue of which three workers died, after so long in all."""
    out = Outgoing(task, f"t-{task}", 0, "", 0, "name", f"raw {task}")
    store.run(publishing.enqueue(KEYS, QUEUE, [out]))
    store.redis.hset(KEYS.task(task), mapping={"i": 3, "k": 1, "ks": ran_ms})


def _claim(store: Store) -> Claim:
    claimed = wait_for(
        lambda: store.run_once(claiming.claim(KEYS, "w", 1, [QUEUE], 1, [""])).claimed,
        10.0,
        "a message to claim",
    )
    return claimed[0].claim


def _start(store: Store, claim: Claim, task: str, trial: Trial) -> str:
    who = Identity(task, f"t-{task}", 0, "name")
    asked = running.start(KEYS, claim, who, own_limit=None, max_resurrections=5, trial=trial)
    return store.run(asked).verdict


def test_of_those_that_wait_the_one_that_ran_shortest_goes_first(store: Store) -> None:
    long, patient = Trial(shortest_ms=60_000), Trial(shortest_ms=1)
    for task, ran_ms in (("on-trial", 500), ("slow", 4_000), ("quick", 5)):
        _accuse(store, task, ran_ms)
    claims = {task: _claim(store) for task in ("on-trial", "slow", "quick")}

    assert _start(store, claims["on-trial"], "on-trial", long) == "run"
    assert _start(store, claims["slow"], "slow", patient) == "busy"
    assert _start(store, claims["quick"], "quick", patient) == "busy"
    # The trial is over with the first's end.
    store.redis.hdel(KEYS.claims(QUEUE, "w"), claims["on-trial"].number)
    store.redis.hdel(KEYS.claims(QUEUE, "w"), f"s:{claims['on-trial'].number}")
    claims = {"slow": _claim(store), "quick": _claim(store)}
    # As if it had just asked, however slow this machine is.
    entry, just_now = KEYS.worker("w"), 10**15
    assert store.redis.hget(entry, "next").endswith(b"|" + KEYS.task("quick").encode())
    store.redis.hset(entry, "next", f"5|{just_now}|{KEYS.task('quick')}")
    assert _start(store, claims["slow"], "slow", patient) == "busy", "it gives way"
    assert _start(store, claims["quick"], "quick", patient) == "run"


def test_who_stopped_asking_is_not_waited_for(store: Store) -> None:
    trial = Trial(shortest_ms=1)
    for task, ran_ms in (("on-trial", 500), ("quick", 5), ("slow", 4_000)):
        _accuse(store, task, ran_ms)
    first, quick = _claim(store), _claim(store)
    assert _start(store, first, "on-trial", Trial(shortest_ms=60_000)) == "run"
    assert _start(store, quick, "quick", trial) == "busy"
    store.redis.hdel(KEYS.claims(QUEUE, "w"), first.number, f"s:{first.number}")
    store.redis.delete(KEYS.scheduled(QUEUE))

    def asks() -> bool:
        verdict = _start(store, _claim(store), "slow", trial)
        assert verdict in ("busy", "run")
        return verdict == "run"

    wait_for(asks, 10.0, "the other to be forgotten")
