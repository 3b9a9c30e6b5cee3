"""One run that saves: at once from several threads, cut off, cancelled, out of its turn."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from relier.config import load
from relier.errors import PayloadError, StaleFenceError
from relier.protocol.identity import Claim, Identity
from relier.store import claiming, publishing, reaping, running
from relier.store.address import Address
from relier.store.broker import Broker
from relier.store.checkpoint_files import FilesystemFiles
from relier.store.publishing import Outgoing
from relier.worker.checkpoints import Checkpoints
from support.proxy import Proxy
from support.wait import wait_for

QUEUE, WORKER, TASK, TOKEN = "climb", "w", "task", "token"
LARGE = "x" * 10_000
SOON_S = 20.0


class Run:
    """A started task, and the folder of its files."""

    def __init__(self, url: str, folder: Path) -> None:
        self.folder = folder
        settings = {
            "checkpoint_max_inline_bytes": 1000,
            "checkpoint_backend": "filesystem",
            "checkpoint_dir": str(folder),
            "redis_socket_timeout_s": 0.3,
        }
        self.broker = Broker(Address.parse(url), load({}, overrides=settings))
        self.keys = self.broker.keys
        self._ask(claiming.hello(self.keys, WORKER, {"epoch": 1}))
        message = Outgoing(TASK, TOKEN, 0, "", 0, "name", "raw")
        self._ask(publishing.enqueue(self.keys, QUEUE, [message]))
        self.claim = self._claim()

    def _claim(self) -> Claim:
        harvest = self._ask(claiming.claim(self.keys, WORKER, 1, [QUEUE], 1, [""]))
        claim: Claim = harvest.claimed[0].claim
        return claim

    def come_back(self) -> Checkpoints:
        """Its process dies, and another starts the task."""
        reaping_it = reaping.reap_claim(self.keys, self.claim, "killed", self.broker.reap_rules)
        self._ask(reaping_it)
        self.claim = self._claim()
        return self.begin()

    def _ask(self, operation: Any) -> Any:
        return self.broker.store.run(operation)

    def begin(self) -> Checkpoints:
        """Start the task, or ask how it was started."""
        who = Identity(TASK, TOKEN, 0, "name")
        begin = running.start(self.keys, self.claim, who, own_limit=None, max_resurrections=5)
        return Checkpoints(self.broker, self.claim, TASK, self._ask(begin), begin)

    def end(self) -> None:
        """Finish the task."""
        self._ask(running.finish(self.keys, self.claim, TASK, "SUCCESS", None))

    def files(self) -> list[str]:
        """Return the files there are."""
        return sorted(path.name for path in self.folder.glob("*/*"))


@pytest.fixture
def run(redis_url: str, tmp_path: Path) -> Iterator[Run]:
    made = Run(redis_url, tmp_path)
    yield made
    made.broker.store.close()


def test_threads_that_save_at_once_leave_the_last_one(run: Run) -> None:
    saving = run.begin()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: saving.save([number, LARGE]), range(8)))
    (name,) = run.files()
    assert name.endswith("-8"), "the one that came in last"
    assert run.begin().earlier()[1] == LARGE


async def test_coroutines_that_save_at_once_leave_the_last_one(run: Run) -> None:
    saving = run.begin()
    await asyncio.gather(*(saving.asave([number, LARGE]) for number in range(8)))
    assert len(run.files()) == 1
    assert run.begin().earlier() == [7, LARGE]
    await saving.asave("small")
    assert run.files() == []
    await run.broker.async_store().aclose()


async def test_a_save_that_is_cancelled_leaves_the_one_before(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    saving = run.begin()
    await saving.asave([1, LARGE])
    writing, go_on = threading.Event(), threading.Event()
    write = FilesystemFiles.write

    def slow(*arguments: Any) -> None:
        writing.set()
        go_on.wait(SOON_S)
        write(*arguments)

    monkeypatch.setattr(FilesystemFiles, "write", slow)
    second = asyncio.create_task(saving.asave([2, LARGE]))
    await asyncio.to_thread(writing.wait, SOON_S)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    go_on.set()
    await asyncio.to_thread(wait_for, lambda: len(run.files()) == 2, SOON_S)
    assert run.begin().earlier() == [1, LARGE]
    run.end()
    saving.tidy()
    assert run.files() == []
    await run.broker.async_store().aclose()


def test_what_was_saved_before_is_there_after_it_was_replaced(run: Run) -> None:
    run.begin().save([1, LARGE])
    second = run.come_back()
    second.save([2, LARGE])
    assert len(run.files()) == 1
    assert second.earlier() == [1, LARGE]
    assert run.begin().earlier() == [2, LARGE]


def test_every_reader_gets_a_state_of_its_own(run: Run) -> None:
    run.begin().save({"list": []})
    reading = run.begin()
    reading.earlier()["list"].append(1)
    assert reading.earlier() == {"list": []}


@pytest.mark.parametrize("state", ["small", LARGE], ids=["inline", "file"])
def test_one_that_lost_its_claim_saves_nothing(run: Run, state: str) -> None:
    saving = run.begin()
    run.end()
    with pytest.raises(StaleFenceError, match="Stop"):
        saving.save(state)
    assert run.files() == []


def test_a_state_in_a_circle_is_refused(run: Run) -> None:
    state: list[object] = []
    state.append(state)
    with pytest.raises(PayloadError, match="serialised"):
        run.begin().save(state)


@pytest.mark.parametrize("state", ["small", LARGE], ids=["inline", "file"])
def test_saving_waits_while_redis_is_away(redis_url: str, tmp_path: Path, state: str) -> None:
    with Proxy(redis_url) as proxy:
        run = Run(proxy.url, tmp_path)
        saving = run.begin()
        proxy.partition()
        thread = threading.Thread(target=saving.save, args=(state,))
        thread.start()
        thread.join(1.0)
        assert thread.is_alive()
        proxy.heal()
        thread.join(SOON_S)
        assert not thread.is_alive()
        assert run.begin().earlier() == state
        run.broker.store.close()
