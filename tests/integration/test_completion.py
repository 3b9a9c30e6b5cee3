"""Names of queues and workers as a shell is offered them, from a real fleet."""

from __future__ import annotations

import os
import subprocess
import sys

import redis

from relier.store.keys import Keys


def complete(line: str, **env: str) -> list[str]:
    asked = subprocess.run(
        [sys.executable, "-c", "from relier.cli.main import rl; rl(prog_name='rl')"],
        env={
            **os.environ,
            **env,
            "_RL_COMPLETE": "bash_complete",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(line.split(" ")) - 1),
        },
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    return [each.partition(",")[2] for each in asked.stdout.split()]


def test_queues_and_workers_are_offered(redis_url: str, client: redis.Redis) -> None:
    keys = Keys()
    client.sadd(keys.queues, "invoices", "inbox", "mail")
    client.sadd(keys.workers, "w1")
    client.hset(keys.worker("w1"), mapping={"epoch": 1, "name": "alice@web1"})
    env = {"RELIER_REDIS_URL": redis_url}
    assert complete("rl queue pause in", **env) == ["inbox", "invoices"]
    assert complete("rl tasks list --queue m", **env) == ["mail"]
    assert complete("rl worker drain al", **env) == ["alice@web1"]
    assert complete(f"rl queue pause --url {redis_url} ma") == ["mail"]
    assert complete("rl queue pause --prefix other: m", **env) == []
