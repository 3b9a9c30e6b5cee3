"""What the server keeps of `expires` is of one life of a task, and of no other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from relier.protocol.identity import Identity
from relier.store import publishing, running
from relier.store.address import Address
from relier.store.client import Store
from relier.store.embedded import EmbeddedServer
from relier.store.publishing import Outgoing
from support.bench import HOUR_MS, KEYS, Bench

QUEUE = "lives"


@pytest.fixture
def bench(server: EmbeddedServer) -> Iterator[Bench]:
    store = Store(Address.parse(server.url), KEYS)
    store.redis.flushdb()
    yield Bench(store)
    store.close()


def dispatch(bench: Bench, token: str) -> None:
    out = Outgoing("a", token, 0, "", 0, "name", f"raw {token}", HOUR_MS)
    bench.store.run(publishing.enqueue(KEYS, QUEUE, [out]))


def begin(bench: Bench, token: str) -> str:
    """Start the task that waits, with a message that says that its expiry is kept; end it."""
    claim = bench.claim(QUEUE)
    start = running.start(
        KEYS,
        claim,
        Identity("a", token, 0, "name"),
        own_limit=None,
        max_resurrections=5,
        expires=True,
    )
    answers = {bench.store.run(start).revoked for _ in range(2)}
    assert len(answers) == 1, "asked again, it says the same"
    assert bench.store.run(running.finish(KEYS, claim, "a", "SUCCESS", None))
    return answers.pop()


@pytest.mark.parametrize(
    ("of_life", "judged"), [(b"2", "expired"), (b"1", "unkept"), (None, "expired")]
)
def test_what_an_older_relier_left_of_a_former_life_is_not_counted(
    bench: Bench, of_life: bytes | None, judged: str
) -> None:
    for token in ("first", "second"):
        dispatch(bench, token)
        kept = bench.redis.hmget(KEYS.task("a"), "el", "l")
        assert kept[0] == kept[1]
        if token == "first":
            assert begin(bench, token) == ""
    bench.redis.hset(KEYS.task("a"), "ex", 1)
    bench.redis.hdel(KEYS.task("a"), "el")
    if of_life is not None:
        bench.redis.hset(KEYS.task("a"), "el", of_life)
    assert begin(bench, "second") == judged
