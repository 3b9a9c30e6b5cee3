"""Fixtures for every test: a real server, a client of it, and a journal."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from celery._state import _set_task_join_will_block

from relier.store.embedded import EmbeddedServer
from support.journal import Journal
from support.servers import new_server


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Run more processes than there are cores: a test of workers waits for a third of its time."""
    cores = os.cpu_count() or 1
    return cores + cores // 2


@pytest.fixture(autouse=True)
def _waits_for_results() -> Iterator[None]:
    """Let the next test wait for results though a worker has run inside this process."""
    yield
    _set_task_join_will_block(False)


@pytest.fixture(scope="session")
def session_server() -> Iterator[EmbeddedServer]:
    """One server for all tests that leave it alive; use `server`, which empties it first."""
    with new_server() as running:
        yield running
        _let_go_of_results()


@pytest.fixture
def server(session_server: EmbeddedServer) -> EmbeddedServer:
    """The shared server, empty. Do not stop it or change its configuration."""
    with redis.Redis.from_url(session_server.url) as admin:
        admin.flushall()
    return session_server


@pytest.fixture
def fresh_server() -> Iterator[EmbeddedServer]:
    """A server of the test's own, to be killed, restarted, stopped or reconfigured."""
    with new_server() as running:
        yield running
        _let_go_of_results()


@pytest.fixture
def redis_url(server: EmbeddedServer) -> str:
    return server.url


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    """A plain client of the shared server; replies are bytes."""
    with redis.Redis.from_url(redis_url) as connected:
        yield connected


@pytest.fixture
def tmp_journal(tmp_path: Path) -> Journal:
    """Where this test's tasks write down what they did; give `tmp_journal.env` to workers."""
    return Journal(tmp_path / "journal.tsv")


def _let_go_of_results() -> None:
    """Collect Celery's results while their server lives: to end, they cancel a subscription."""
    gc.collect()
