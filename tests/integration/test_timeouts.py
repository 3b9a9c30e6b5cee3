"""Soft and hard timeouts, with real workers of every pool."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from celery import chord
from celery.exceptions import SoftTimeLimitExceeded

from faults.scene import Scene
from integration.apps import late
from integration.apps.late import HARD_S, SOFT_S
from relier.errors import HardTimeoutError
from relier.ops import revival
from relier.ops.revival import Order
from relier.store.embedded import EmbeddedServer

pytestmark = pytest.mark.slow  # half a minute, and the server has little to do with it

APP: dict[str, Any] = {"app": "integration.apps.late", "options": ["--without-mingle"]}
TRIES = 3
"""A machine that is busy elsewhere makes one measurement late, hardly each."""

_words = itertools.count()


def _word() -> str:
    return f"word{next(_words)}"


def _open(server: EmbeddedServer, number: int, folder: Path, stack: ExitStack) -> Scene:
    url = f"{server.url.removesuffix('/0')}/{number}"
    scene = Scene(url, folder, stack)
    scene.redis.flushdb()
    scene.app = late.build(url)
    return scene


@pytest.fixture(scope="module")
def prefork(
    session_server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    with ExitStack() as stack:
        scene = _open(session_server, 4, tmp_path_factory.mktemp("prefork"), stack)
        scene.only_worker = scene.worker("prefork", **APP, concurrency=6)
        yield scene
        assert scene.only_worker.running
        assert "timeouts under the" not in scene.only_worker.log()


@pytest.fixture(scope="module", params=["threads", "solo"])
def helpless(
    session_server: EmbeddedServer,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Iterator[Scene]:
    """A pool that cannot stop what it runs, and says so."""
    pool = request.param
    with ExitStack() as stack:
        scene = _open(session_server, 5, tmp_path_factory.mktemp(pool), stack)
        scene.only_worker = scene.worker(pool, **APP, pool=pool, concurrency=4)
        name = pool.removesuffix("s")
        assert f"timeouts under the {name} pool" in scene.only_worker.log()
        yield scene
        assert scene.only_worker.running


def _at(scene: Scene, what: str, word: str) -> float:
    """Return when a task last wrote something down, since its body began."""
    began = scene.journal.entries("began", word)[0].at_s
    return scene.journal.entries(what, word)[-1].at_s - began


def _assert_stopped(scene: Scene, *task_ids: str) -> None:
    """Each has one end: FAILURE with the right error, a dead letter, and no resurrection."""
    scene.settle(task_ids)
    letters = scene.letters()
    for task_id in task_ids:
        result = scene.app.AsyncResult(task_id)
        assert result.state == "FAILURE"
        assert isinstance(result.result, HardTimeoutError)
        assert letters[task_id]["reason"] == "hard_timeout"
        assert letters[task_id]["error"].startswith("HardTimeoutError: ")
        assert scene.returns(task_id) == (0, 0)


BARS = ["coroutine", "coroutine, sync hook", "stubborn", "function", "function, async hook"]


def test_hook_and_stop_are_on_time(prefork: Scene) -> None:
    """Soft 1 s, hard 2 s: the hook at 1 s +- 0.1, stopped by 2.3 s; three tries for each kind."""
    scene = prefork
    runs: list[tuple[str, str, str]] = []
    for _ in range(TRIES):
        tries = [(kind, word, scene.push(kind, word)) for kind in BARS for word in (_word(),)]
        for _, _, task_id in tries:
            scene.wait(lambda each=task_id: scene.state(each) == "FAILURE", "its hard timeout")
        runs += tries
    _assert_stopped(scene, *(task_id for _, _, task_id in runs))
    overtime = scene.events("overtime")
    for kind in BARS:
        words = [word for each, word, _ in runs if each == kind]
        hooks = [_at(scene, "hook", word) for word in words]
        stops = [_at(scene, "alive", word) for word in words]
        assert min(hooks) >= SOFT_S - 0.1, (kind, hooks)
        assert min(stops) >= HARD_S - 0.1, (kind, stops)
        assert min(hooks) <= SOFT_S + 0.1, (kind, hooks)
        assert min(stops) <= HARD_S + 0.3, (kind, stops)
    for _, word, task_id in runs:
        assert scene.journal.count("began", word) == 1
        assert scene.journal.count("hook", word, f"{HARD_S:.1f}") == 1
        assert scene.journal.count("hook ended", word) == 1
        assert overtime[task_id] == 1
    assert scene.events("condemned").total() >= 3 * TRIES


def test_what_is_stuck_outside_python_is_stopped(prefork: Scene) -> None:
    _assert_stopped(prefork, prefork.push("stuck", _word()))


def test_a_result_made_of_the_cancellation_is_too_late(prefork: Scene) -> None:
    task_id = prefork.push("returning", _word())
    _assert_stopped(prefork, task_id)
    assert "HardTimeoutError" in prefork.letters()[task_id]["traceback"]


def test_celerys_own_limit_ends_a_task_alike(prefork: Scene) -> None:
    task_id = prefork.app.tasks["hold"].apply_async((_word(),), time_limit=late.BRIEF_S).id
    _assert_stopped(prefork, task_id)
    assert "raise its time_limit" in prefork.letters()[task_id]["error"]


def test_failures_are_counted(prefork: Scene) -> None:
    scene = prefork

    def failed() -> int:
        return int(scene.redis.hget(scene.keys.worker(scene.member(scene.only_worker)), "failed"))

    _assert_stopped(scene, scene.push("brief", _word()))
    before = failed()
    _assert_stopped(scene, scene.push("brief", _word()), scene.push("abrief", _word()))
    assert failed() == before + 2


KEEPING = ["keeping", "keeping, async hook", "akeeping"]


def _assert_kept(scene: Scene, kind: str) -> None:
    """What the hook saved is there when the dead letter is released."""
    word = _word()
    task_id = scene.push(kind, word)
    _assert_stopped(scene, task_id)
    broker = scene.app.relier.broker
    letter = revival.find(broker.store, task_id)
    assert letter is not None
    assert revival.release(broker.store, letter, broker.keyring, Order()).released
    scene.wait(lambda: scene.state(task_id) == "SUCCESS", "its second life")
    assert scene.app.AsyncResult(task_id).get() == {"of": word}


@pytest.mark.parametrize("kind", KEEPING)
def test_what_a_hook_saved_outlives_the_hard_timeout(prefork: Scene, kind: str) -> None:
    _assert_kept(prefork, kind)


def test_without_a_hook_people_are_told(prefork: Scene) -> None:
    scene, word = prefork, _word()
    task_id = scene.push("told", word)
    scene.wait(lambda: scene.events("overtime")[task_id], "the event")
    said = f"told[{task_id}] is over its soft timeout of 0.3 s"
    scene.wait(lambda: said in scene.only_worker.log(), "the log line")
    scene.let(word)
    scene.settle([task_id])
    assert scene.state(task_id) == "SUCCESS"


@pytest.mark.parametrize("kind", ["raising hook", "raising hook, coroutine"])
def test_a_hook_that_raises_is_reported(prefork: Scene, kind: str) -> None:
    scene, word = prefork, _word()
    task_id = scene.push(kind, word)
    said = f"on_soft_timeout of {kind}[{task_id}] raised"
    scene.wait(lambda: said in scene.only_worker.log(), "the report")
    scene.let(word)
    scene.settle([task_id])
    assert scene.state(task_id) == "SUCCESS"
    assert "as told by the hook" in scene.only_worker.log()


@pytest.mark.parametrize("kind", ["hanging hook", "hanging hook, coroutine"])
def test_a_hook_that_hangs_is_reported_and_keeps_nobody(prefork: Scene, kind: str) -> None:
    scene, word = prefork, _word()
    task_id = scene.push(kind, word)
    scene.wait_journal("hook", word)
    scene.let(word)
    scene.settle([task_id])
    assert scene.state(task_id) == "SUCCESS"
    said = f"on_soft_timeout of {kind}[{task_id}]"
    scene.wait(lambda: said in scene.only_worker.log(), "the report")
    if "coroutine" in kind:
        assert scene.journal.count("hook cancelled", word) == 1


def test_a_hook_that_hangs_does_not_keep_its_task_from_being_stopped(prefork: Scene) -> None:
    scene, word = prefork, _word()
    _assert_stopped(scene, scene.push("hanging hook, too long", word))
    assert scene.journal.count("hook cancelled", word) == 1


def test_a_hook_that_kills_its_process_is_a_death_like_any_other(prefork: Scene) -> None:
    scene, word = prefork, _word()
    task_id = scene.push("killing hook", word)
    scene.wait_journal("hook", word, times=2)
    scene.let(word)
    scene.settle([task_id])
    assert scene.state(task_id) == "SUCCESS"
    assert scene.returns(task_id) == (1, 0)


@pytest.mark.parametrize("kind", ["saved", "asaved"])
def test_a_body_is_interrupted_if_it_asks_for_it(prefork: Scene, kind: str) -> None:
    scene, word = prefork, _word()
    task_id = scene.push(kind, word)
    scene.settle([task_id])
    assert scene.app.AsyncResult(task_id).get() == f"saved {word}"
    assert scene.journal.count("hook ended", word) == 1, "the body's end waited for it"


def test_an_interruption_that_is_not_caught_is_a_failure(prefork: Scene) -> None:
    scene = prefork
    task_id = scene.push("interrupted", _word())
    scene.settle([task_id])
    assert isinstance(scene.app.AsyncResult(task_id).result, SoftTimeLimitExceeded)
    assert scene.letters()[task_id]["reason"] == "failed"


def test_a_retry_after_the_soft_timeout_has_time_of_its_own(prefork: Scene) -> None:
    scene, word = prefork, _word()
    task_id = scene.push("again", word)
    scene.wait(lambda: scene.state(task_id) == "SUCCESS", "its second generation")
    assert scene.journal.count("began", word) == 2
    assert scene.journal.count("hook", word) == 1


@pytest.mark.parametrize("kind", ["brief", "abrief"])
def test_a_chord_with_a_part_that_is_stopped_fails(prefork: Scene, kind: str) -> None:
    scene, tasks = prefork, prefork.app.tasks
    mourner = tasks["mourn"].s()
    part = tasks[kind].s(_word()).set(link_error=[mourner])
    body = tasks["sink"].s().on_error(mourner)
    result = chord([part, tasks["note"].s(_word())], body).apply_async()
    scene.wait(lambda: result.state == "FAILURE", "the chord to fail")
    stopped = result.parent.results[0].id
    scene.wait_journal("mourned", stopped)
    scene.wait_journal("mourned", result.id)
    mourned = [entry.fields for entry in scene.journal.entries("mourned")]
    assert len(mourned) == len(set(mourned))
    _assert_stopped(scene, stopped)


@pytest.mark.parametrize("kind", ["equal", "equal, coroutine"])
def test_an_equal_call_that_waits_runs_when_the_first_was_stopped(
    prefork: Scene, kind: str
) -> None:
    scene, word = prefork, _word()
    ids = [scene.push(kind, word) for _ in range(2)]
    _assert_stopped(scene, *ids)
    first, second = scene.journal.entries("began", word)
    assert second.at_s >= first.at_s + late.BRIEF_S


@pytest.mark.parametrize("kind", ["close", "aclose"])
def test_who_ends_at_the_very_moment_has_one_end(prefork: Scene, kind: str) -> None:
    scene, words = prefork, [_word() for _ in range(24)]
    lengths = [late.BRIEF_S + (n - 12) * 0.002 for n in range(24)]
    ids = [scene.push(kind, *each) for each in zip(words, lengths, strict=True)]
    scene.settle(ids)
    letters = scene.letters()
    for task_id, word in zip(ids, words, strict=True):
        assert scene.state(task_id) == ("FAILURE" if task_id in letters else "SUCCESS")
        if task_id not in letters:
            assert scene.journal.count("passed", word) == 1
        assert scene.journal.count("began", word) == 1
        assert scene.returns(task_id) == (0, 0)


def test_a_worker_that_shuts_down_holds_to_the_hard_timeout(prefork: Scene) -> None:
    scene, word = prefork, _word()
    queue = "shutting down"
    worker = scene.worker("leaver", **APP, queues=[queue], concurrency=1)
    task_id = scene.app.tasks["draining"].apply_async((word,), queue=queue).id
    scene.began(word)
    assert worker.stop() == 0
    assert _at(scene, "alive", word) < HARD_S + 5
    scene.app.control.add_consumer(queue, destination=[scene.only_worker.hostname])
    scene.wait(lambda: scene.state(task_id) == "FAILURE", "its end")
    assert isinstance(scene.app.AsyncResult(task_id).result, HardTimeoutError)
    assert scene.journal.count("began", word) == 1


def test_a_worker_lost_over_the_soft_timeout_is_a_death_like_any_other(prefork: Scene) -> None:
    scene, word = prefork, _word()
    queue = "to be lost"
    worker = scene.worker("lost", **APP, queues=[queue], concurrency=1)
    task_id = scene.app.tasks["over"].apply_async((word,), queue=queue).id
    scene.wait_journal("hook", word)
    scene.app.control.add_consumer(queue, destination=[scene.only_worker.hostname])
    worker.sigkill_tree()
    scene.wait_journal("hook", word, times=2)
    scene.let(word)
    scene.wait(lambda: scene.state(task_id) == "SUCCESS", "its end")
    assert scene.returns(task_id) == (1, 0)


def test_a_plain_task_is_held_to_the_settings(
    session_server: EmbeddedServer, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        scene = _open(session_server, 6, tmp_path, stack)
        env = {late.PROTECT_ALL: "1", "RELIER_SOFT_TIMEOUT": "0.2", "RELIER_HARD_TIMEOUT": "1.5"}
        scene.worker("plain", **APP, env=env)
        task_id = scene.app.tasks["plain"].delay(_word()).id
        _assert_stopped(scene, task_id)
        assert scene.events("overtime")[task_id] == 1


# -- pools that cannot stop what they run


def test_a_coroutine_that_ignores_its_cancellation_is_left(helpless: Scene) -> None:
    scene, word, other = helpless, _word(), _word()
    _assert_stopped(scene, scene.push("stubborn, briefly", word))
    assert scene.journal.count("swallowed", word) >= 1
    # In as many threads as there are, or in the only one: what was left is not in their loops.
    after = [scene.push("asaved", other) for _ in range(4)]
    scene.settle(after)
    assert {scene.state(each) for each in after} == {"SUCCESS"}
    began = min(entry.at_s for entry in scene.journal.entries("began", other))
    assert not [each for each in scene.journal.entries("alive", word) if each.at_s > began]


@pytest.mark.parametrize("kind", ["coroutine", "coroutine, sync hook"])
def test_a_coroutine_is_cancelled_in_every_pool(helpless: Scene, kind: str) -> None:
    scene, word = helpless, _word()
    task_id = scene.push(kind, word)
    _assert_stopped(scene, task_id)
    assert scene.journal.count("began", word) == 1
    assert scene.journal.count("hook ended", word) == 1
    assert _at(scene, "hook", word) >= SOFT_S - 0.1


def test_what_cannot_be_stopped_fails_on_time_and_commits_nothing(helpless: Scene) -> None:
    scene, word = helpless, _word()
    task_id = scene.push("outlasting", word)
    scene.began(word)
    said = f"outlasting[{task_id}] is over its hard timeout"
    scene.wait(lambda: said in scene.only_worker.log(), "word of it")
    if "threads" in scene.only_worker.name:
        # Another thread of the same worker sends what follows.
        _assert_stopped(scene, task_id)
        assert not scene.journal.count("passed", word), "it still runs"
    scene.let(word)
    scene.wait_journal("passed", word)
    _assert_stopped(scene, task_id)
    said = f"outlasting[{task_id}] ran, but commits nothing"
    scene.wait(lambda: said in scene.only_worker.log(), "word of what it did in vain")
    after = scene.push("note", _word())
    scene.settle([after])


@pytest.mark.parametrize("kind", KEEPING)
def test_what_a_hook_saved_is_kept_in_every_pool(helpless: Scene, kind: str) -> None:
    _assert_kept(helpless, kind)


def test_raising_in_every_pool(helpless: Scene) -> None:
    scene, word, other = helpless, _word(), _word()
    scene.settle([coroutine := scene.push("asaved", word)])
    assert scene.app.AsyncResult(coroutine).get() == f"saved {word}"
    if "solo" in scene.only_worker.name:
        scene.settle([function := scene.push("saved", other)])
        assert scene.app.AsyncResult(function).get() == f"saved {other}"
    else:
        assert "raise_on_soft cannot interrupt a def task" in scene.only_worker.log()
