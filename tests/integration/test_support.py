"""The tests' own tools are trusted by every fault test, so they are tested too."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from relier.store.embedded import EmbeddedServer
from support.journal import Journal
from support.proxy import Command, Proxy
from support.resp import Splitter
from support.wait import wait_for
from support.worker import Worker

APP = """
import os
from celery import Celery
from support.journal import Journal

app = Celery(broker=os.environ["BROKER"])

@app.task(name="note")
def note(word):
    Journal.from_env().write("note", word)
"""


@pytest.fixture
def proxy(server: EmbeddedServer) -> Iterator[Proxy]:
    with Proxy(server.url, scripts={}) as running:
        yield running


def connect(proxy: Proxy, timeout_s: float = 5.0) -> redis.Redis:
    """Connect without a second try; the connection is made and greeted at once."""
    client = redis.Redis.from_url(
        proxy.url,
        socket_timeout=timeout_s,
        retry=Retry(NoBackoff(), 0),
        single_connection_client=True,
    )
    client.ping()
    return client


def is_incr(command: Command) -> bool:
    return command.name == "INCRBY"  # redis-py's INCR


def test_the_proxy_forwards_and_numbers_commands(proxy: Proxy) -> None:
    with connect(proxy) as one, connect(proxy) as two:
        proxy.forget()
        one.set("k", b"\r\n\x00" * 100_000)
        assert two.get("k") == b"\r\n\x00" * 100_000
        with one.pipeline() as pipe:
            pipe.incr("n").incr("n")
            assert pipe.execute() == [1, 2]
    greetings = ("HELLO", "CLIENT")
    names = [command.name for command in proxy.commands if command.name not in greetings]
    assert names == ["SET", "GET", "MULTI", "INCRBY", "INCRBY", "EXEC"]
    numbers = [command.number for command in proxy.commands]
    assert numbers == list(range(1, len(numbers) + 1))
    assert proxy.count(is_incr) == 2


def test_a_cut_before_leaves_the_server_untouched(proxy: Proxy, client: redis.Redis) -> None:
    happened = threading.Event()
    with connect(proxy) as cut_off:
        cut = proxy.cut_before(2, is_incr, happened.set)
        assert cut_off.incr("n") == 1
        with pytest.raises(redis.ConnectionError):
            cut_off.incr("n")
    assert cut.wait(5).name == "INCRBY"
    assert happened.is_set()
    assert client.get("n") == b"1"
    with connect(proxy) as again:
        assert again.incr("n") == 2, "a cut fires once"


def test_a_cut_after_hides_a_success(proxy: Proxy, client: redis.Redis) -> None:
    with connect(proxy) as cut_off:
        seen: list[bytes | None] = []
        cut = proxy.cut_after(1, is_incr, lambda: seen.append(client.get("n")))
        with pytest.raises(redis.ConnectionError):
            cut_off.incr("n")
    cut.wait(5)
    assert seen == [b"1"], "the server has run it when the action comes"


def test_a_cut_finds_its_reply_among_pipelined_and_pushed_ones(
    proxy: Proxy, client: redis.Redis
) -> None:
    with connect(proxy) as cut_off, connect(proxy) as listener:
        heard = listener.pubsub()
        heard.subscribe("a", "b")
        wait_for(lambda: client.publish("a", "x") == 1, 5)
        cut = proxy.cut_after(1, lambda command: command.args[:2] == (b"INCRBY", b"second"))
        pipe = cut_off.pipeline(transaction=False)
        with pytest.raises(redis.ConnectionError):
            pipe.incr("first").incr("second").execute()
        cut.wait(5)
        assert (client.get("first"), client.get("second")) == (b"1", b"1")
        heard.close()


def test_a_cut_whose_link_goes_before_the_reply_waits_for_the_next(
    proxy: Proxy, client: redis.Redis
) -> None:
    cut = proxy.cut_after(1, lambda command: command.name == "BLPOP")
    with connect(proxy) as severed:
        lost = threading.Thread(target=_fail_to_pop, args=(severed,))
        lost.start()
        wait_for(lambda: client.info("clients")["blocked_clients"], 5, "the first to be under way")
        proxy.sever()
        lost.join(5)
        assert not cut.fired.is_set()
    client.rpush("list", "x", "y")
    with connect(proxy) as cut_off:
        with pytest.raises(redis.ConnectionError):
            cut_off.blpop("list", 5)
        cut.wait(5)


def _fail_to_pop(client: redis.Redis) -> None:
    with pytest.raises(redis.ConnectionError):
        client.blpop("list", 5)


def test_a_script_is_known_by_its_name(server: EmbeddedServer) -> None:
    with (
        redis.Redis.from_url(server.url) as direct,
        Proxy(server.url, {str(direct.script_load("return 7")): "seven"}) as named,
        connect(named) as through,
    ):
        cut = named.cut_after(1, lambda command: command.script == "seven")
        with pytest.raises(redis.ConnectionError):
            through.evalsha(next(iter(named._scripts)), 0)
        assert str(cut.wait(5)) == "EVALSHA seven"
        assert through.eval("return 7", 0) == 7
        assert named.commands[-1].script == "seven"


def test_a_partition_closes_nothing_and_delivers_late(proxy: Proxy, client: redis.Redis) -> None:
    with connect(proxy, timeout_s=0.3) as cut_off:
        proxy.partition()
        with pytest.raises(redis.TimeoutError):
            cut_off.incr("n")
        # the client has hung up by now, but its bytes are on their way
        assert client.get("n") is None
        proxy.heal()
        wait_for(lambda: client.get("n") == b"1", 5, "the late command arrives")
        assert cut_off.incr("n") == 2


def test_sever_closes_every_connection(proxy: Proxy) -> None:
    with connect(proxy) as one, connect(proxy) as two:
        proxy.sever()
        for cut_off in (one, two):
            with pytest.raises(redis.ConnectionError):
                cut_off.incr("n")
        assert one.incr("n") == 1, "and lets new ones in"


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b"+OK\r\n", b"OK"),
        (b"$-1\r\n", b""),
        (b"$2\r\n\r\n\r\n", b"\r\n"),
        (b"*-1\r\n", []),
        (b"*2\r\n:1\r\n*1\r\n$0\r\n\r\n", [b"1", [b""]]),
        (b"%1\r\n+a\r\n,1.5\r\n", [b"a", b"1.5"]),
        (b">2\r\n+message\r\n_\r\n", [b"message", b""]),
    ],
)
def test_the_protocol_is_cut_at_any_byte(raw: bytes, value: object) -> None:
    splitter = Splitter()
    for byte in raw[:-1]:
        assert splitter.feed(bytes([byte])) == []
    assert splitter.feed(raw[-1:] + raw) == [(raw, value), (raw, value)]


def test_wait_for_says_what_it_waited_for() -> None:
    assert wait_for(lambda: "value", 1) == "value"
    with pytest.raises(AssertionError, match=r"not within 0.02 s: the state is 3"):
        wait_for(lambda: False, 0.02, lambda: f"the state is {1 + 2}")


def test_a_worker_runs_freezes_loses_a_process_and_stops(
    redis_url: str, tmp_path: Path, tmp_journal: Journal
) -> None:
    (tmp_path / "support_app.py").write_text(APP)
    env = {"BROKER": redis_url, **tmp_journal.env}
    with Worker("support_app", env=env, path=[tmp_path], log_dir=tmp_path, name="one") as worker:
        assert worker.hostname == "one@test"
        wait_for(lambda: len(worker.children()) == 2, 10)
        worker.sigstop()
        send(redis_url, "hello")
        worker.sigcont()
        entry = wait_for(lambda: tmp_journal.entries("note"), 20, worker.log)[0]
        assert entry.fields == ("note", "hello")
        assert entry.pid in worker.children()

        before = worker.children()
        os.kill(before[0], signal.SIGKILL)
        wait_for(lambda: before[0] not in worker.children(), 10)
        assert before[1] in worker.children()
        assert worker.stop() == 0
        assert not worker.running

    with Worker("support_app", env=env, path=[tmp_path], pool="solo", concurrency=1) as worker:
        assert worker.children() == []
        worker.sigkill()
        assert worker.returncode == -signal.SIGKILL
    assert not worker.log_path.exists()


def test_a_worker_that_cannot_start_shows_its_log(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="ended with") as caught:
        Worker("no_such_module", log_dir=tmp_path).start()
    assert "no_such_module" in "".join(caught.value.__notes__)


def send(broker_url: str, word: str) -> None:
    """Publish one task as any stock producer would."""
    from celery import Celery

    with Celery(broker=broker_url) as app:
        app.send_task("note", [word])
