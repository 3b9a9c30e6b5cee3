"""What the doctor makes of what it sees, and whether it asks about every right."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from relier.ops.doctor import celery_app, server
from relier.ops.doctor.celery_app import AppFacts
from relier.store import rights, scripts

SOUND_INFO = {
    "role": "master",
    "used_memory": 2**20,
    "maxmemory": 2**30,
    "connected_clients": 10,
    "maxclients": 10_000,
    "connected_slaves": 1,
    "slave0": {"ip": "10.0.0.2", "port": 6379, "state": "online", "lag": 0},
}

SOUND_APP = AppFacts(
    name="shop",
    installed=True,
    conf={
        "broker_url": "relier+redis://127.0.0.1/0",
        "worker_consumer": "relier.worker.consumer:Consumer",
        "task_serializer": "json",
        "accept_content": ["json"],
        "worker_prefetch_multiplier": 4,
    },
    protected=("shop.charge",),
    unprotected=(),
    result_backend="redis://127.0.0.1/0",
    same_server=True,
    signed=False,
)


def test_every_command_of_every_script_is_asked_about() -> None:
    called = {
        command
        for name in scripts.names()
        for command in re.findall(r"redis\.p?call\('([A-Z]+)'", scripts.load(name).source)
    }
    assert called <= rights.NEEDED.keys()


def test_a_line_of_grants_is_quoted_as_redis_cli_reads_it() -> None:
    lacking = rights.Rights("me", ("XADD", "CLIENT|ID"), ('~my "q"*', "~caf\u00e9*"), ())
    assert lacking.grant == (r'ACL SETUSER me "~my \"q\"*" "~caf\xc3\xa9*" +xadd +client|id')
    assert rights.Rights("me", (), (), ()).grant == ""


@pytest.mark.parametrize(
    ("changes", "name", "status"),
    [
        ({}, "", ""),
        ({"aof_last_write_status": "err"}, "disk writes", "failure"),
        ({"used_memory": 2**30 - 1}, "memory", "warning"),
        ({"maxmemory": 0}, "memory", "unknown"),
        ({"role": "slave", "master_host": "a", "master_port": 1}, "role", "failure"),
        ({"slave0": {"state": "wait_bgsave"}}, "replicas", "warning"),
        ({"cluster_enabled": 1}, "cluster", "failure"),
        ({"connected_clients": 9_000}, "connections", "warning"),
    ],
)
def test_what_info_says_is_judged(changes: dict[str, Any], name: str, status: str) -> None:
    found = list(server.described(SOUND_INFO | changes))
    odd = [(check.name, check.status) for check in found if check.status != "ok"]
    assert odd == ([(name, status)] if name else [])
    assert all(check.fix for check in found if check.status in ("warning", "failure"))


def test_a_sound_app_is_one_line_and_where_its_results_go() -> None:
    assert [(each.name, each.status) for each in celery_app.judge(SOUND_APP)] == [
        ("app", "ok"),
        ("results", "ok"),
    ]


@pytest.mark.parametrize(
    ("conf", "name", "status"),
    [
        ({"broker_url": "redis://127.0.0.1/0"}, "app transport", "failure"),
        ({"broker_transport": "redis"}, "app transport", "failure"),
        ({"worker_consumer": "my:Consumer"}, "app transport", "failure"),
        ({"task_always_eager": True}, "task_always_eager", "failure"),
        (
            {"broker_transport_options": {"visibility_timeout": 3600}},
            "visibility_timeout",
            "warning",
        ),
        ({"task_serializer": "pickle"}, "pickle", "warning"),
        ({"accept_content": ["json", "application/x-python-serialize"]}, "pickle", "warning"),
        ({"worker_prefetch_multiplier": 0}, "worker_prefetch_multiplier", "warning"),
        (
            {"worker_cancel_long_running_tasks_on_connection_loss": True},
            "worker_cancel_long_running_tasks_on_connection_loss",
            "warning",
        ),
    ],
)
def test_settings_that_fight_us_are_named(conf: dict[str, Any], name: str, status: str) -> None:
    app = replace(SOUND_APP, conf={**SOUND_APP.conf, **conf})
    odd = [each for each in celery_app.judge(app) if each.status != "ok"]
    assert [(each.name, each.status) for each in odd] == [(name, status)]
    assert odd[0].fix


def test_a_signed_fleet_may_pickle() -> None:
    app = replace(SOUND_APP, conf={**SOUND_APP.conf, "task_serializer": "pickle"}, signed=True)
    assert all(each.status == "ok" for each in celery_app.judge(app))


@pytest.mark.parametrize(
    ("conf", "fate"),
    [
        ({}, "lost with its process"),
        ({"task_acks_late": True}, "acknowledged as failed"),
        ({"task_acks_late": True, "task_reject_on_worker_lost": True}, "without end"),
    ],
)
def test_what_becomes_of_an_unprotected_task_is_said(conf: dict[str, Any], fate: str) -> None:
    app = replace(SOUND_APP, conf={**SOUND_APP.conf, **conf}, unprotected=tuple("abcde"))
    [odd] = [each for each in celery_app.judge(app) if each.status != "ok"]
    assert "5: a, b, c and 2 more" in odd.found
    assert fate in odd.found


def test_an_app_without_relier_is_a_failure_and_nothing_else() -> None:
    [found] = celery_app.judge(replace(SOUND_APP, installed=False))
    assert (found.status, "Relier(app)" in found.fix) == ("failure", True)
