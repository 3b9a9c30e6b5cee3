"""How much a worker takes in advance: what one holds back, another cannot run."""

from __future__ import annotations

import pytest

from faults.apps import labour
from faults.scene import Scene
from support.proxy import Proxy

UNLIMITED = {labour.PREFETCH: "0"}


@pytest.mark.parametrize(
    ("pool", "options"),
    [
        ("solo", []),
        ("prefork", ["--disable-prefetch"]),
        ("threads", ["--disable-prefetch"]),
        ("prefork", ["--prefetch-multiplier", "1"]),
    ],
    ids=["solo", "prefork, disabled", "threads, disabled", "prefork, one"],
)
def test_nothing_waits_behind_a_long_task(pool: str, options: list[str], scene: Scene) -> None:
    held = scene.push("hold", "long")
    notes = [f"n{n}" for n in range(10)]
    for word in notes:
        scene.push("note", word)
    first = scene.worker("first", pool=pool, concurrency=1, options=options)
    scene.began("long")
    scene.worker("second", concurrency=1)
    scene.wait(lambda: scene.journal.count("ran") == len(notes), "the second to run the rest")
    scene.let("long")
    scene.settle()
    assert [scene.journal.count("ran", word) for word in notes] == [1] * len(notes)
    assert scene.journal.count("began", "long") == 1
    assert all(scene.returns(each) == (0, 0) for each in scene.accepted)
    assert scene.state(held) == "SUCCESS"
    assert first.running


def test_a_worker_without_a_limit_takes_all_and_gives_it_back(scene: Scene) -> None:
    scene.push("hold", "long")
    many = 600
    notes = [each.id for each in scene.app.tasks["note"].push_many([f"n{n}" for n in range(many)])]
    worker = scene.worker("only", concurrency=1, env=UNLIMITED)
    scene.began("long")
    scene.wait_claimed(many + 1)
    worker.sigterm()
    scene.wait(lambda: scene.waiting() == many, "all that had not started to be back")
    scene.let("long")
    assert worker.wait() == 0
    scene.worker("next", env=UNLIMITED)
    scene.settle([*scene.accepted, *notes])
    assert [scene.journal.count("ran", f"n{n}") for n in range(many)] == [1] * many


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_worker_wakes_itself_when_something_is_due(pool: str, scene: Scene, proxy: Proxy) -> None:
    scene.worker("only", pool=pool, broker=proxy.url)
    # The server's own end of a blocking wait comes up to a tenth of a second late.
    rung = proxy.cut_after(1, lambda command: command.name == "ZADD")
    note = scene.app.tasks["note"]
    later = [note.apply_async((f"n{n}",), countdown=0.3 + n * 0.13).id for n in range(8)]
    scene.settle(later)
    assert rung.fired.is_set()
    assert [scene.journal.count("ran", f"n{n}") for n in range(8)] == [1] * 8
