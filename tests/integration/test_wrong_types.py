"""Keys of another type in the place of relier's own: no script does half of what it should.

Each script is brought into a scene, and each key that it touches is taken away and replaced by a
key of another type. Then the script either refuses and has changed nothing, or it does its work
beside that key; and once the key is mended, asking again leaves what an undisturbed run leaves.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from relier.errors import ConfigurationError
from relier.store import reaping
from relier.store.address import Address
from relier.store.client import Store
from relier.store.embedded import EmbeddedServer
from relier.store.operations import Operation
from relier.store.scripts import load, names
from support.bench import KEYS, Bench
from support.scenes import PAUSED, RECOVERY, SCENES, STRINGS, Q, Scene

MESSAGES = [f"raw {task}" for task in "abcd"]


@pytest.fixture
def bench(server: EmbeddedServer) -> Iterator[Bench]:
    store = Store(Address.parse(server.url), KEYS)
    yield Bench(store)
    store.close()


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_a_key_of_another_type_leaves_nothing_half_done(bench: Bench, scene: Scene) -> None:
    undisturbed = begin(bench, scene)
    for _ in range(2):
        bench.store.run_once(undisturbed)
    tidy(bench)
    should = contents(bench)
    for key in dict.fromkeys([*undisturbed.keys, *scene.more]):
        operation = begin(bench, scene)
        original = bench.redis.dump(key)
        spoil(bench, key)
        before, spoilt = contents(bench), bench.redis.dump(key)
        if is_refused(bench, operation):
            assert contents(bench) == before, f"{key} stops it half way"
        assert_in_one_place(bench, f"beside {key}")
        if bench.redis.dump(key) == spoilt:  # or it was of no use to anybody
            bench.redis.delete(key)
            if original is not None:
                bench.redis.restore(key, 0, original)
        bench.store.run_once(operation)
        tidy(bench)
        if key not in (*scene.does_without, *PAUSED):
            assert contents(bench) == should, f"{key} was mended"


def test_every_script_that_writes_has_its_scene() -> None:
    writing = {name for name in names() if "no-writes" not in load(name).source.split("\n", 1)[0]}
    assert {scene.script for scene in SCENES} == writing


def begin(bench: Bench, scene: Scene) -> Operation[Any]:
    bench.redis.flushdb()
    bench.hello("w")
    return scene.act(bench)


def is_refused(bench: Bench, operation: Operation[Any]) -> bool:
    """Run it; return whether it raised an error about the type of a key."""
    try:
        bench.store.run_once(operation)
    except ConfigurationError as error:
        if "Nothing was changed" not in str(error):
            raise
        return True
    return False


def spoil(bench: Bench, key: str) -> None:
    """Put a key of a type that relier does not use there."""
    bench.redis.delete(key)
    if key in STRINGS or key.startswith("chord-"):
        bench.redis.hset(key, "not", "what it should be")
    else:
        bench.redis.set(key, "not what it should be")


def tidy(bench: Bench) -> None:
    """Do what goes on by itself: the sweep wakes whom nobody woke."""
    bench.redis.delete(KEYS.bell(Q), KEYS.bell("two"), KEYS.bell(RECOVERY))
    for key in bench.redis.smembers(KEYS.parked_keys):
        bench.store.run(reaping.sweep(KEYS, key.decode(), [Q, "two"]))
    bench.redis.delete(KEYS.bell(Q), KEYS.bell("two"), KEYS.bell(RECOVERY))


def contents(bench: Bench) -> dict[str, Any]:
    """Return all that the server holds but events and counts, which are for people.

    What the clock makes different is left out.
    """
    read: dict[bytes, Callable[[bytes], Any]] = {
        b"string": bench.redis.get,
        b"list": lambda key: bench.redis.lrange(key, 0, -1),
        b"set": bench.redis.smembers,
        b"zset": lambda key: bench.redis.zrange(key, 0, -1),
        b"hash": lambda key: without_history(bench.redis.hgetall(key)),
    }
    found = {}
    for key in sorted(bench.redis.keys()):
        kind = bench.redis.type(key)
        if kind != b"stream" and b":tally:" not in key:
            found[key.decode()] = timeless(repr(read[kind](key)))
    return found


def without_history(fields: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """Leave out what repeats the events; a hash that had it may keep its fields in any order."""
    return {name: fields[name] for name in sorted(fields) if name != b"h"}


def timeless(said: str) -> str:
    said = re.sub(r"b'beat': b'\d+'", "", said)
    return re.sub(r"\d{10,}", "#", "".join(sorted(re.split(r"(?<=, )", said))))


def assert_in_one_place(bench: Bench, where: str) -> None:
    """Every message there is is in one place; letters keep theirs, and a claim its record."""
    whole = contents(bench)
    for message in MESSAGES:
        places = [key for key, text in whole.items() for _ in re.findall(message, text)]
        assert len(places) <= 1, f"{message} is in {places} {where}"
