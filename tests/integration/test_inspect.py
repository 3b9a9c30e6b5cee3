"""`rl tasks inspect` of tasks that are hard to find, or hard to show."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery
from click.testing import CliRunner

from relier import Relier
from relier.cli.main import rl
from relier.store.embedded import EmbeddedServer


class Desk:
    def __init__(self, server: EmbeddedServer) -> None:
        self.server = server
        self.app = Celery("sender", broker=server.url, backend=server.url, set_as_current=False)
        Relier(self.app, env="development")

    def send(self, *args: Any, **options: Any) -> str:
        return str(self.app.send_task("add", args, **options).id)

    def rl(self, *arguments: str) -> str:
        done = CliRunner().invoke(rl, [*arguments, "--url", self.server.url])
        assert done.exit_code == 0, done.output
        return done.stdout

    def facts(self, *arguments: str) -> Any:
        return json.loads(self.rl(*arguments, "--json"))


@pytest.fixture
def desk(server: EmbeddedServer) -> Iterator[Desk]:
    made = Desk(server)
    yield made
    made.app.close()


def test_a_task_deep_in_a_long_queue_is_found_where_it_is(desk: Desk) -> None:
    ids = [desk.send(n, n) for n in range(5000)]
    for ahead in (0, 2500, 4000, 4999):
        found = desk.facts("tasks", "inspect", ids[ahead])
        assert found["where"] == f"in queue celery, {ahead:,} ahead of it"
        assert found["args"] == f"[{ahead}, {ahead}]"


def test_a_task_far_ahead_in_the_schedule_is_found(desk: Desk) -> None:
    ids = [desk.send(n, countdown=3600 + n) for n in range(2500)]
    found = desk.facts("tasks", "inspect", ids[-1])
    assert (found["state"], found["args"]) == ("scheduled", "[2499]")


def test_a_payload_of_ten_megabytes_is_cut_unless_all_is_asked_for(desk: Desk) -> None:
    task_id = desk.send("x" * 10_000_000)
    shown = desk.rl("tasks", "inspect", task_id)
    assert len(shown) < 10_000
    assert "10,000,004 characters; --full" in shown
    assert len(desk.rl("tasks", "inspect", task_id, "--full")) > 10_000_000
    assert desk.facts("tasks", "inspect", task_id)["left_out"]
    whole = desk.facts("tasks", "inspect", task_id, "--full")
    assert (len(whole["args"]), whole["left_out"]) == (10_000_004, False)


def test_what_a_payload_carries_stays_text(desk: Desk) -> None:
    task_id = desk.send("\x1b[2J\x1b]0;mine\x07", "half \ud83d of a face", "größer", "\u202eevil")
    for arguments in ((), ("--full",)):
        shown = desk.rl("tasks", "inspect", task_id, *arguments)
        assert not {"\x1b", "\x07", "\u202e"} & set(shown)
        assert "größer" in shown
    assert "ud83d" in desk.facts("tasks", "inspect", task_id)["args"]


def test_pickled_arguments_are_never_unpickled(desk: Desk) -> None:
    options = {"serializer": "pickle", "argsrepr": "(<a set>,)"}
    task_id = desk.send({1, 2}, **options)
    found = desk.facts("tasks", "inspect", task_id)
    assert found["args"] == "(<a set>,)"
    assert found["size_bytes"] > 0
