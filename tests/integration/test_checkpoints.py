"""What a task saved is there in its next attempt, wherever it is kept and whatever died."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from click.testing import CliRunner

from integration.apps import climbers
from relier.cli.main import rl
from relier.store.checkpoint_files import FilesystemFiles
from relier.store.embedded import EmbeddedServer
from relier.store.sweeping import sweep
from support.journal import Journal
from support.settled import assert_settled
from support.wait import wait_for
from support.worker import Worker

INLINE_BYTES = 1000
LARGE = 100_000
SOON_S = 30.0

sizes = pytest.mark.parametrize("size", [0, LARGE], ids=["inline", "file"])


class Base:
    """A server, a folder of checkpoint files, and the workers that share it.

    Args:
        url: the server.
        folder: for everything that is written.
    """

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.files = folder / "checkpoints"
        self.journal = Journal(folder / "journal.tsv")
        self.app: Celery = climbers.build(url)
        self.client: redis.Redis = redis.Redis.from_url(url, decode_responses=True)
        self._folder = folder

    def worker(self, name: str, pool: str = "prefork", **env: str) -> Worker:
        """Make a worker."""
        return Worker(
            "integration.apps.climbers",
            env={
                climbers.BROKER: self.url,
                "RELIER_HEARTBEAT_TTL": "2",
                "RELIER_CHECKPOINT_MAX_INLINE_BYTES": str(INLINE_BYTES),
                "RELIER_CHECKPOINT_BACKEND": "filesystem",
                "RELIER_CHECKPOINT_DIR": str(self.files),
                **self.journal.env,
                **env,
            },
            name=name,
            pool=pool,
            log_dir=self._folder,
        )

    def push(self, task: str, *args: Any) -> Any:
        """Dispatch."""
        return self.app.tasks[task].push(*args)

    def run(self, task: str, *args: Any) -> Any:
        """Dispatch, and return the result."""
        return self.push(task, *args).get(SOON_S)

    def record(self, task_id: str) -> dict[str, str]:
        """Return a task's record."""
        return dict(self.client.hgetall(f"rl:task:{task_id}"))

    def rl(self, *words: str) -> Any:
        """Ask a question on the command line; return the answer."""
        done = CliRunner().invoke(rl, [*words, "--url", self.url, "--json"])
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    def dead(self, task_id: str) -> dict[str, str]:
        """Wait for a dead letter."""
        key = f"rl:{{celery}}:dead:{task_id}"
        return dict(wait_for(lambda: self.client.hgetall(key), SOON_S))

    def open(self, word: str) -> None:
        """Let tasks that wait for this word go on."""
        (self._folder / f"gate-{word}").touch()

    def left(self) -> list[str]:
        """Return the checkpoint files there are."""
        return sorted(path.name for path in self.files.glob("*/*"))

    def assert_gone(self, task_id: str) -> None:
        """Wait until nothing of a task's checkpoints is anywhere."""
        wait_for(lambda: self.record(task_id).get("s") in ("e", "w"), SOON_S)
        assert {"cp", "cd"} & set(self.record(task_id)) == set()
        wait_for(lambda: not self.left(), SOON_S, lambda: f"left: {self.left()}")
        wait_for(lambda: set(self.client.hgetall("rl:checkpoints")) <= {"home"}, SOON_S)


@pytest.fixture(scope="module")
def base(
    session_server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Base]:
    with redis.Redis.from_url(session_server.url) as admin:
        admin.flushall()
    made = Base(session_server.url, tmp_path_factory.mktemp("base"))
    with made.client, made.worker("climber"):
        yield made
        assert_settled(redis.Redis.from_url(session_server.url))


@sizes
@pytest.mark.parametrize("task", ["climb", "aclimb"])
def test_the_next_attempt_goes_on_where_a_killed_one_had_come(
    base: Base, task: str, size: int
) -> None:
    receipt = base.push(task, 2, size)
    assert receipt.get(SOON_S) == [2, 3]
    base.assert_gone(receipt.id)


def test_threads_of_a_task_save_for_it(base: Base) -> None:
    receipt = base.push("in_threads", 3)
    assert receipt.get(SOON_S) == [2]
    base.assert_gone(receipt.id)


@sizes
def test_a_retry_goes_on_with_it_and_with_the_metadata(base: Base, size: int) -> None:
    headers = {"tenant": "acme", "trace": {"id": 7}}
    receipt = base.app.tasks["retried"].apply_async((size,), headers=headers)
    assert receipt.get(SOON_S) == [1, headers]
    base.assert_gone(receipt.id)


def test_what_replaces_a_task_does_not_get_its_checkpoint(base: Base) -> None:
    receipt = base.push("replaced")
    assert receipt.get(SOON_S) is None
    base.assert_gone(receipt.id)


@sizes
def test_it_survives_the_dead_letters(base: Base, size: int) -> None:
    word = f"antidote{size}"
    receipt = base.push("condemned", word, size)
    letter = base.dead(receipt.id)
    assert "cp" in letter
    assert base.record(receipt.id)["s"] == "d"
    assert "cp" not in base.record(receipt.id), "it would be in two places"
    seen = base.rl("dlq", "inspect", receipt.id)["checkpoint"]
    assert seen["size_bytes"] >= size
    assert seen["where"] == ("in Redis" if size == 0 else f"filesystem:{_home(base)}/{_one(base)}")
    assert base.rl("tasks", "inspect", receipt.id)["checkpoint"] == seen

    base.open(word)
    assert base.rl("dlq", "release", receipt.id)["released"]
    wait_for(lambda: base.record(receipt.id).get("s") == "e", SOON_S)
    assert base.rl("tasks", "inspect", receipt.id)["result_value"] == "[1, 1]"
    base.assert_gone(receipt.id)


def test_a_task_stopped_at_its_hard_timeout_keeps_it(base: Base) -> None:
    receipt = base.push("slow", "word")
    letter = base.dead(receipt.id)
    assert letter["reason"] == "hard_timeout"
    assert json.loads(letter["cd"]) == ["slow", "word"]
    base.client.delete(f"rl:{{celery}}:dead:{receipt.id}", "rl:{celery}:dead")


@pytest.mark.slow
@pytest.mark.parametrize("task", ["tardy", "atardy"])
def test_the_hook_of_a_soft_timeout_saves_for_the_life_after_the_hard_one(
    base: Base, task: str
) -> None:
    receipt = base.push(task)
    assert base.dead(receipt.id)["reason"] == "hard_timeout"
    assert base.rl("dlq", "release", receipt.id)["released"]
    wait_for(lambda: base.record(receipt.id).get("s") == "e", SOON_S)
    assert receipt.get(SOON_S) == ["saved at the soft timeout", 1]
    base.assert_gone(receipt.id)


def test_a_write_that_was_torn_leaves_the_one_before(base: Base) -> None:
    receipt = base.push("torn", LARGE)
    wait_for(lambda: any(name.endswith(".part") for name in base.left()), SOON_S)
    assert receipt.get(SOON_S) == 1
    (part,) = wait_for(lambda: len(base.left()) == 1 and base.left(), SOON_S)
    assert part.endswith(".part"), "the rest of the torn one waits for the sweep"
    _sweep_all(base)


def test_a_file_that_was_never_referred_to_leaves_the_one_before(base: Base) -> None:
    assert base.run("unfinished", LARGE) == 1
    wait_for(lambda: len(base.left()) == 1, SOON_S)
    _sweep_all(base)


@pytest.mark.parametrize(
    ("task", "error", "tells"),
    [
        (("says", "lock"), "PayloadError", "cannot be serialised as JSON"),
        (("says", "large", LARGE), "CheckpointError", "File too large"),
        (("says", "fine"), "saved", ""),
    ],
)
def test_what_cannot_be_saved_is_a_clear_error(
    base: Base, task: tuple[Any, ...], error: str, tells: str
) -> None:
    receipt = base.push(*task)
    said = receipt.get(SOON_S)
    assert said.startswith(error)
    assert tells in said
    base.assert_gone(receipt.id)


def test_a_folder_that_is_gone_is_a_clear_error(base: Base) -> None:
    base.assert_gone(_ended(base, "climb", 1, LARGE))
    home = next(base.files.iterdir())
    home.rmdir()
    home.touch()
    try:
        said = base.run("says", "large")
    finally:
        home.unlink()
    assert said.startswith("CheckpointError")
    assert "RELIER_CHECKPOINT_DIR" in said


def test_inspect_tells_how_much_and_how_old(base: Base) -> None:
    receipt = base.push("held", "shown")
    wait_for(lambda: base.journal.count("held", "shown"), SOON_S)
    found = base.rl("tasks", "inspect", receipt.id)
    assert found["state"] == "running"
    assert found["checkpoint"]["size_bytes"] == len('{"step": 1, "padding": ""}')
    assert 0 <= found["now_ms"] - found["checkpoint"]["at_ms"] < 60_000
    shown = CliRunner().invoke(rl, ["tasks", "inspect", receipt.id, "--url", base.url]).stdout
    assert "26 bytes, in Redis, " in shown
    base.open("shown")
    assert receipt.get(SOON_S) == "shown"


def test_a_server_that_forgot_the_start_does_not_make_it_stale(base: Base) -> None:
    receipt = base.push("late", "forgotten")
    wait_for(lambda: base.journal.count("late", "forgotten"), SOON_S)
    (claims,) = base.client.keys("rl:{celery}:claims:*")
    (started,) = [name for name in base.client.hkeys(claims) if name.startswith("s:")]
    base.client.hdel(claims, started)
    base.client.hset(f"rl:task:{receipt.id}", "s", "q")
    base.open("forgotten")
    assert receipt.get(SOON_S) == "saved"
    base.assert_gone(receipt.id)


@pytest.mark.slow
@sizes
def test_another_worker_goes_on_with_it_in_another_pool(
    fresh_server: EmbeddedServer, tmp_path: Path, size: int
) -> None:
    base = Base(fresh_server.url, tmp_path)
    with base.client, base.worker("first", "threads") as first:
        receipt = base.push("held", "moved", size)
        wait_for(lambda: base.journal.count("held", "moved", 1), SOON_S)
        with base.worker("second"):
            first.sigkill_tree()
            wait_for(lambda: base.journal.count("held", "moved", 2, 1), SOON_S)
            base.open("moved")
            assert receipt.get(SOON_S) == "moved"
            base.assert_gone(receipt.id)


@pytest.mark.slow
def test_without_a_backend_a_large_one_is_refused(
    fresh_server: EmbeddedServer, tmp_path: Path
) -> None:
    base = Base(fresh_server.url, tmp_path)
    inline = {"RELIER_CHECKPOINT_BACKEND": "", "RELIER_CHECKPOINT_DIR": ""}
    with base.client, base.worker("inline", "solo", **inline):
        said = base.run("says", "large")
    assert said.startswith("PayloadError: the state of a checkpoint is 200,002 bytes")
    assert "RELIER_CHECKPOINT_BACKEND=filesystem" in said


@pytest.mark.slow
def test_a_worker_refuses_a_folder_it_cannot_write_to(
    fresh_server: EmbeddedServer, tmp_path: Path
) -> None:
    base = Base(fresh_server.url, tmp_path)
    base.files.touch()
    worker = base.worker("refused")
    with base.client:
        worker.start(wait_ready=False)
        try:
            assert worker.wait(SOON_S) != 0
            assert "RELIER_CHECKPOINT_DIR is" in worker.log()
        finally:
            worker.cleanup()


def test_outside_a_worker_states_are_checked_and_kept_nowhere() -> None:
    app = climbers.build("redis://127.0.0.1:1/0")
    app.conf.task_always_eager = True
    assert app.tasks["says"].delay("fine").get() == "saved"
    assert app.tasks["says"].delay("lock").get().startswith("PayloadError")


def _ended(base: Base, task: str, *args: Any) -> str:
    receipt = base.push(task, *args)
    receipt.get(SOON_S)
    return str(receipt.id)


def _home(base: Base) -> str:
    return str(base.client.hget("rl:checkpoints", "home"))


def _one(base: Base) -> str:
    (name,) = base.left()
    return name


def _sweep_all(base: Base) -> None:
    """Sweep as a worker does, without waiting for its time."""
    broker = base.app.relier.broker
    files = FilesystemFiles(base.files)
    assert sweep(broker.store, files) == 0, "what was just reserved may still be written"
    assert sweep(broker.store, files, grace_ms=0) == 1
    assert not base.left()
    assert set(base.client.hgetall("rl:checkpoints")) == {"home"}
