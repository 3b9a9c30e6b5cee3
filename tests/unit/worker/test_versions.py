from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery, chain, chord, group

from relier.errors import ConfigurationError
from relier.protocol import migrations
from relier.worker import versions

app = Celery("versions", set_as_current=False)


@app.task(name="new")
def new(*_args: Any) -> None: ...


@app.task(name="old")
def old(*_args: Any) -> None: ...


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> migrations.Migrations:
    """A process in which the task `new` has version 3."""
    mine = migrations.Migrations()
    for number in (1, 2):
        mine.register_migration("new", number)(lambda args, kwargs: (args, kwargs))
    monkeypatch.setattr(versions, "SchemaRegistry", mine)
    return mine


def stated(node: Any) -> dict[str, list[int | None]]:
    """Return the versions that the signatures of each task state, wherever they are nested."""
    found: dict[str, list[int | None]] = {"new": [], "old": []}

    def walk(each: Any) -> None:
        if isinstance(each, dict):
            if each.get("task") in found:
                found[each["task"]].append(each["options"].get(versions.OPTION))
            for value in each.values():
                walk(value)
        elif isinstance(each, list | tuple):
            for value in each:
                walk(value)

    walk(json.loads(json.dumps(node)))
    return found


NESTED = [
    new.s(1),
    chain(old.s(), new.s()),
    group(new.s(), old.s()),
    chord([old.s(), new.s()], new.s()),
    chain(old.s(), group(new.s(1), chain(new.s(2), old.s())), new.s(3)),
    old.s().on_error(new.s()),
    old.signature(options={"link": [new.s()]}),
]


@pytest.mark.parametrize("signature", NESTED, ids=repr)
def test_every_signature_inside_a_message_states_its_version(signature: Any) -> None:
    before = json.dumps(signature)
    embed = {"chain": [signature], "callbacks": None, "errbacks": [signature], "chord": signature}
    versions.stamp(embed)
    made = stated(embed)
    assert set(made["new"]) == {3}
    assert set(made["old"]) <= {None}
    assert json.dumps(signature) == before, "the caller's own signature was changed"


@pytest.mark.parametrize("signature", NESTED, ids=repr)
def test_those_that_came_without_a_version_are_of_the_first_and_stay_so(signature: Any) -> None:
    plain = json.loads(json.dumps(signature))
    request = SimpleNamespace(callbacks=[plain], errbacks=None, chain=[plain], chord=None)
    versions.stamp_received(request)
    embed = {"callbacks": request.callbacks, "chain": request.chain}
    versions.stamp(embed)
    assert set(stated(embed)["new"]) == {1}


def test_a_stamped_signature_is_dispatched_as_its_version() -> None:
    embed = {"chain": [new.s(1)]}
    versions.stamp(embed)
    options = dict(app.signature(embed["chain"][0]).options)
    assert versions.of_publish("new", options) == 3
    assert versions.OPTION not in options


def test_a_producer_without_the_migrations_may_state_the_version() -> None:
    assert versions.of_publish("elsewhere", {}) == 1
    assert versions.of_publish("elsewhere", {versions.OPTION: 4}) == 4
    assert versions.of_publish("new", {versions.OPTION: 1}) == 1
    for odd in (0, "2", 1.5):
        with pytest.raises(ConfigurationError, match="schema_version"):
            versions.of_publish("elsewhere", {versions.OPTION: odd})


def test_nothing_is_touched_where_no_task_has_migrations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "SchemaRegistry", migrations.Migrations())
    signature = new.s(1)
    embed = {"chain": [signature]}
    versions.stamp(embed)
    assert embed["chain"][0] is signature


def test_a_worker_refuses_migrations_that_nothing_would_apply() -> None:
    with pytest.raises(ConfigurationError, match=r"new has migrations.*@rl_task"):
        versions.check(app)
