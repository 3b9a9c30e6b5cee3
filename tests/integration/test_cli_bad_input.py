"""Every command against what it should not meet: one line, the right status, never a traceback."""

from __future__ import annotations

import os
import pty
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator

import pytest
import redis
from click.testing import CliRunner, Result

from relier.cli.main import rl
from relier.cli.manual import contexts, page
from relier.store.embedded import EmbeddedServer
from relier.store.keys import Keys
from support.servers import new_server
from support.wait import wait_for

SPECIAL = {
    "rl cluster up": "starts a server and workers of its own",
    "rl demo": "starts workers of its own",
    "rl doctor": "its example loads an app; see test_doctor.py",
    "rl run-resurrector": "stays",
    "rl worker start": "becomes a worker",
}
RL = [sys.executable, "-m", "relier.cli"]
EVIL = "\x1b[2J\x1b]0;owned\x07\u202e"
SEEN = ["tasks list", "tasks inflight", "dlq list", "dlq list --group", "queue list", "verify"]


def _commands() -> Iterator[list[str]]:
    """Each command as its own example types it, once and without its questions."""
    for context in contexts(rl):
        found = page(context)
        flags = {flag for each in context.command.params for flag in each.opts}
        if found.group or found.command in SPECIAL or "--url" not in flags:
            continue
        words = [each for each in shlex.split(found.examples[0])[1:] if each != "--follow"]
        yield [*words, *(["--yes"] if "--yes" in flags - set(words) else [])]


COMMANDS = [words for words in _commands() if words[0] != "cluster"]  # it asks no server first


def run(words: list[str], url: str) -> Result:
    env = {"RELIER_REDIS_SOCKET_TIMEOUT": "0.5"}
    return CliRunner().invoke(rl, [*words, "--url", url], env=env)


def said_in_one_line(done: Result, words: list[str]) -> None:
    assert done.exception is None or isinstance(done.exception, SystemExit), (words, done.exception)
    if done.exit_code > 1:
        assert len(done.stderr.strip().splitlines()) == 1, (words, done.stderr)


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "http://127.0.0.1/0",
        "redis://",
        "redis://127.0.0.1:port/0",
        "redis://127.0.0.1:99999/0",
        "redis://127.0.0.1:1/main",
        "redis://[::1",
        "unix://",
    ],
)
def test_a_url_that_cannot_be_one_is_status_2(url: str) -> None:
    for words in COMMANDS:
        done = run(words, url)
        said_in_one_line(done, words)
        assert done.exit_code == 2, (words, done.output)


@pytest.mark.parametrize(
    "words",
    [
        ["tasks", "inspect", "task-\udcff"],
        ["dlq", "release", "letter-\udcff"],
        ["queue", "list", "--prefix", "\udcff"],
    ],
)
def test_an_argument_that_is_no_text_is_status_2(words: list[str], server: EmbeddedServer) -> None:
    for asked in (words, [*words, "--json"]):
        done = run(asked, server.url)
        said_in_one_line(done, asked)
        assert done.exit_code == 2, (asked, done.output)
        assert "is not valid UTF-8" in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["verify", "--within", "nan"],
        ["worker", "drain", "--timeout", "nan"],
        ["run-resurrector", "--wait", "NaN"],
    ],
)
def test_a_number_that_is_none_is_status_2(words: list[str], server: EmbeddedServer) -> None:
    done = run(words, server.url)
    assert done.exit_code == 2, done.output
    assert "is not a number in" in done.stderr


def test_a_database_with_nothing_of_reliers(server: EmbeddedServer, client: redis.Redis) -> None:
    client.set("somebody", "else's")
    before = client.dbsize()
    for words in COMMANDS:
        done = run(words, server.url)
        said_in_one_line(done, words)
        assert done.exit_code in (0, 4), (words, done.output)
    assert client.dbsize() == before, "a question left something behind"


def test_keys_that_are_not_what_they_should_be(server: EmbeddedServer, client: redis.Redis) -> None:
    keys = Keys()
    for name in (keys.queues, keys.workers, keys.dead("celery"), keys.events("celery")):
        client.set(name, "somebody else's")
    for words in COMMANDS:
        said_in_one_line(run(words, server.url), words)


def test_a_user_who_may_do_nothing(fresh_server: EmbeddedServer) -> None:
    with redis.Redis.from_url(fresh_server.url) as admin:
        admin.execute_command("ACL", "SETUSER", "guest", "on", ">pw", "+ping")
    url = fresh_server.url.replace("redis://", "redis://guest:pw@")
    for words in COMMANDS:
        done = run(words, url)
        said_in_one_line(done, words)
        assert done.exit_code == 1, (words, done.output)
        assert "`rl doctor`" in done.stderr


def test_a_replica_that_takes_no_writes(fresh_server: EmbeddedServer) -> None:
    with new_server() as replica, redis.Redis.from_url(replica.url) as client:
        client.replicaof("127.0.0.1", str(fresh_server.port))
        wait_for(lambda: client.info("replication")["master_link_status"] == "up", 30)
        for words in COMMANDS:
            done = run(words, replica.url)
            said_in_one_line(done, words)
            assert done.exit_code in (0, 3, 4), (words, done.output)


@pytest.fixture(scope="module")
def crowded() -> Iterator[str]:
    """A server with payloads that would take over a terminal, and very many of them."""
    keys = Keys()
    message = '{"headers": {"id": "%s", "task": "%s", "argsrepr": "%s"}, "properties": {}}'
    evil = EVIL.encode("unicode_escape").decode().replace("\\x", "\\u00")
    with new_server() as server, redis.Redis.from_url(server.url) as client:
        client.sadd(keys.queues, "celery", f"q{EVIL}")
        client.lpush(f"q{EVIL}", b"\xff\x00\x1b[2J", message % ("loud", evil, evil))
        with client.pipeline(transaction=False) as pipe:
            for number in range(100_000):
                pipe.lpush("celery", message % (f"task-{number}", "add", "(1, 2)"))
            letter = {"reason": EVIL, "name": EVIL, "error": EVIL, "parcel": b"|\xff\x1b[2J"}
            for number in range(20):
                pipe.zadd(keys.dead("celery"), {f"letter-{number}": number + 1})
                pipe.hset(keys.dead_letter("celery", f"letter-{number}"), mapping=letter)
            pipe.execute()
        yield server.url


def on_a_terminal(words: list[str], columns: int, **env: str) -> tuple[int, bytes]:
    """Run a command in a terminal of its own; return its status and what it drew."""
    screen, terminal = pty.openpty()
    try:
        with subprocess.Popen(
            [*RL, *words],
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            env={**os.environ, "TERM": "xterm", "COLUMNS": str(columns), "LINES": "24", **env},
            start_new_session=True,
        ) as process:
            os.close(terminal)
            drawn = b""
            try:
                while rest := os.read(screen, 65536):
                    drawn += rest
            except OSError:
                pass  # EIO: the other side has ended
            return process.wait(30), drawn
    finally:
        os.close(screen)


@pytest.mark.parametrize(
    "words", [*SEEN, "dlq inspect letter-1", "tasks inspect loud", "doctor", "worker status"]
)
def test_a_narrow_terminal_is_given_text_and_no_orders(crowded: str, words: str) -> None:
    status, drawn = on_a_terminal([*words.split(), "--url", crowded], 40, NO_COLOR="1")
    assert status in (0, 1)
    assert b"Traceback" not in drawn
    for order in (b"\x1b[2J", b"\x1b]0", b"\x07", "\u202e".encode(), b"\x00"):
        assert order not in drawn
    assert not re.search(rb"\x1b\[[0-9;]*3[0-7]m", drawn), "colours, in spite of NO_COLOR"


def test_colours_are_for_terminals(crowded: str) -> None:
    words = ["doctor", "--url", crowded]
    assert b"\x1b[3" in on_a_terminal(words, 80)[1]
    off = subprocess.run([*RL, *words], capture_output=True, check=False)
    assert b"\x1b" not in off.stdout + off.stderr


@pytest.mark.parametrize(
    "words",
    ["tasks list --limit 10000", "tasks list --limit 10000 --json", "man", "config show --json"],
)
def test_a_reader_who_has_had_enough_ends_it_in_silence(crowded: str, words: str) -> None:
    with subprocess.Popen(
        [*RL, *words.split()],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "RELIER_REDIS_URL": crowded},
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(1)
        process.stdout.close()
        assert (process.wait(60), process.stderr.read()) == (0, b"")
