"""Signatures with real workers: what is signed runs, what is not as it was signed does not."""

from __future__ import annotations

import base64
import json
import pickle
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery, chain, chord, group
from click.testing import CliRunner, Result
from kombu import Connection

from integration.apps import vault
from relier.cli.main import rl
from relier.protocol import outcome
from relier.protocol.envelope import HEADER, Keyring, Verdict, key_id
from relier.protocol.outcome import Outcome, Value
from relier.store.embedded import EmbeddedServer
from relier.store.keys import Keys
from relier.worker.refusal import MOST_DEFERRALS_OF_NEWER
from support.journal import Journal
from support.wait import wait_for
from support.worker import Worker

KEY, FORMER, FOREIGN = "the present key of it", "the former key of it", "a key of somebody else"
SOON_S = 30.0
ASIDE = "aside"


class Vault:
    """A worker that runs only what is signed, and producers of several kinds.

    Args:
        app: a producer with the present key.
        worker: of keys ``KEY, FORMER``.
    """

    def __init__(self, url: str, folder: Path, stack: ExitStack) -> None:
        self.url, self.folder, self._stack = url, folder, stack
        self.redis = stack.enter_context(redis.Redis.from_url(url))
        self.redis.flushall()
        self.keys = Keys()
        self.journal = Journal(folder / "journal.tsv")
        self.app = self.producer(secret_key=KEY)
        self.worker = self.start("main", KEY, FORMER)

    def producer(self, **settings: Any) -> Celery:
        app = vault.build(self.url, **settings)
        # A failed test's traceback keeps results alive; they would unsubscribe from a dead server.
        self._stack.callback(app.backend.result_consumer.subscribed_to.clear)
        return app

    def start(self, name: str, *keys: str, required: bool = True) -> Worker:
        worker = Worker(
            "integration.apps.vault",
            env={
                vault.BROKER: self.url,
                "RELIER_SECRET_KEY": ",".join(keys),
                "RELIER_REQUIRE_SIGNATURE": str(required).lower(),
                "C_FORCE_ROOT": "1",  # what it may unpickle is what these tests are about
                "RELIER_MAX_INTERRUPTIONS": "3",
                "RELIER_HEARTBEAT_TTL": "2",
                **self.journal.env,
            },
            name=name,
            log_dir=self.folder,
            options=("--without-mingle", "--without-gossip"),
        )
        self._stack.push(worker.__exit__)
        worker.start()
        return worker

    def made(self, app: Celery | None = None, *args: Any, name: str = "open") -> dict[str, Any]:
        """Return a message as a producer would enqueue it."""
        (app or self.app).tasks[name].apply_async(args, queue=ASIDE)
        found: dict[str, Any] = json.loads(self.redis.rpop(ASIDE))
        return found

    def put(self, raw: bytes | dict[str, Any]) -> bytes:
        """Put an element into the worker's queue."""
        raw = raw if isinstance(raw, bytes) else json.dumps(raw).encode()
        self.redis.lpush(vault.QUEUE, raw)
        return raw

    def letter_of(self, raw: bytes) -> tuple[str, str, str]:
        """Wait for the letter that keeps this message; return its id, reason and error."""
        return wait_for(lambda: self._letter_of(raw), SOON_S, lambda: self.worker.log()[-3000:])

    def _letter_of(self, raw: bytes) -> tuple[str, str, str] | None:
        for each in self.redis.zrange(self.keys.dead(vault.QUEUE), 0, -1):
            fields = self.redis.hgetall(self.keys.dead_letter(vault.QUEUE, each.decode()))
            if fields[b"parcel"] == b"|" + raw:
                return each.decode(), fields[b"reason"].decode(), fields[b"error"].decode()
        return None

    def events(self, kind: str, task_id: str) -> int:
        entries = self.redis.xrange(self.keys.events(vault.QUEUE))
        return sum(f[b"k"] == kind.encode() and f[b"i"] == task_id.encode() for _, f in entries)

    def works(self, word: str) -> None:
        """Assert that the worker lives and runs what is signed."""
        assert self.app.tasks["open"].push(word).get(SOON_S) == word
        assert self.worker.running

    def rl(self, *arguments: str, keys: str = KEY, required: bool = True) -> Result:
        env = {"RELIER_SECRET_KEY": keys, "RELIER_REQUIRE_SIGNATURE": str(required).lower()}
        return CliRunner().invoke(rl, [*arguments, "--url", self.url], env=env)


@pytest.fixture(scope="module")
def held(
    session_server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Vault]:
    with ExitStack() as stack:
        yield Vault(session_server.url, tmp_path_factory.mktemp("vault"), stack)


async def test_every_way_of_publishing_is_signed(held: Vault) -> None:
    open_, total = held.app.tasks["open"], held.app.tasks["total"]
    receipts = [
        open_.push("push"),
        await open_.apush("apush"),
        *open_.push_many(["many 1", "many 2"]),
        open_.delay("delay"),
        open_.apply_async(("countdown",), countdown=0.2),
        open_.apply_async(("priority",), priority=6, headers={HEADER: "another's"}),
        open_.apply_async((["a", {"list": None}],), serializer="pickle"),
        held.app.send_task("open", ("by name",)),
        held.app.tasks["twice"].push("retried"),
        held.app.tasks["another"].push("replaced"),
        chain(open_.s("first"), open_.si("chained")).delay(),
        open_.apply_async(("linked",), link=open_.s()),
        chord(group(open_.s("x"), open_.s("y")), total.s()).delay(),
    ]
    got = [each.get(SOON_S) for each in receipts]
    assert got[:5] == ["push", "apush", "many 1", "many 2", "delay"]
    assert got[-5:] == ["retried", "replaced", "chained", "linked", "x+y"]
    wait_for(lambda: held.journal.count("opened", "linked") == 2, SOON_S)


def test_a_retry_carries_nothing_of_the_delivery_before(held: Vault) -> None:
    scheduled = held.keys.scheduled(vault.QUEUE)
    sent = held.app.tasks["twice"].push("later", 3600)
    parcel = wait_for(lambda: held.redis.zrange(scheduled, 0, -1), SOON_S)[0]
    held.redis.zrem(scheduled, parcel)
    raw = parcel.partition(b"|")[2]
    headers = json.loads(raw)["headers"]
    assert (headers["id"], headers["retries"]) == (sent.id, 1)
    assert "relier" not in headers
    assert Keyring([KEY]).judge(raw).verdict is Verdict.VERIFIED


def test_what_a_stock_consumer_puts_back_is_still_signed(held: Vault) -> None:
    held.app.tasks["open"].apply_async(("put back",), queue=ASIDE)
    with Connection(held.url) as stock, closing(stock.SimpleQueue(ASIDE)) as queue:
        queue.get(timeout=SOON_S).requeue()
    raw: Any = held.redis.rpop(ASIDE)
    assert json.loads(raw)["headers"]["redelivered"], "it was written anew"
    held.put(raw)
    wait_for(lambda: held.journal.count("opened", "put back") == 1, SOON_S)


def _tampered(held: Vault) -> Any:
    sent = held.made(None, "cheap")
    sent["body"] = base64.b64encode(b'[["dear"], {}, {}]').decode()
    return sent


def _renamed(held: Vault) -> Any:
    sent = held.made(None, "renamed")
    sent["headers"]["task"] = "fatal"
    return sent


def _extended(held: Vault) -> Any:
    sent = held.made(None, "extended")
    sent["headers"]["retries"] = 7
    return sent


def _cut(held: Vault) -> Any:
    return json.dumps(held.made(None, "cut")).encode()[:-40]


def _cut_body(held: Vault) -> Any:
    sent = held.made(None, "cut body")
    sent["body"] = sent["body"][:-4]
    return sent


def _cut_envelope(held: Vault) -> Any:
    sent = held.made(None, "cut envelope")
    sent["headers"][HEADER] = sent["headers"][HEADER][:-9]
    return sent


def _unsigned(held: Vault) -> Any:
    return held.made(held.producer(), "unsigned")


def _foreign(held: Vault) -> Any:
    return held.made(held.producer(secret_key=FOREIGN), "foreign")


def _old_protocol(held: Vault) -> Any:
    sent = held.made(None, "old protocol")
    body = {"task": "open", "id": "old-protocol", "args": ["old protocol"], "kwargs": {}}
    sent["headers"], sent["body"] = {}, base64.b64encode(json.dumps(body).encode()).decode()
    return sent


CHANGED = f"is not what key {key_id(KEY)} signed"
BAD: dict[str, tuple[Callable[[Vault], Any], str, str]] = {
    "a tampered byte": (_tampered, "integrity", CHANGED),
    "another task": (_renamed, "integrity", CHANGED),
    "another header": (_extended, "integrity", CHANGED),
    "a cut body": (_cut_body, "integrity", CHANGED),
    "a cut envelope": (_cut_envelope, "integrity", "envelope is cut or garbled"),
    "a cut message": (_cut, "unreadable", "not JSON"),
    "no signature": (_unsigned, "integrity", "is not signed, and RELIER_REQUIRE_SIGNATURE is on"),
    "an unknown key": (_foreign, "integrity", f"is signed by key {key_id(FOREIGN)}"),
    "an older protocol": (_old_protocol, "integrity", "set task_protocol to 2"),
}


@pytest.mark.parametrize(("made", "reason", "error"), BAD.values(), ids=BAD.keys())
def test_what_nobody_vouches_for_is_kept_raw_and_not_run(
    held: Vault, made: Callable[[Vault], Any], reason: str, error: str
) -> None:
    before = len(held.journal.entries("opened"))
    raw = held.put(made(held))
    letter_id, why, said = held.letter_of(raw)
    assert why == reason
    assert error in said
    assert reason == "unreadable" or said.startswith("PayloadIntegrityError: ")
    assert held.redis.get(f"celery-task-meta-{letter_id}") is None, "who may not write tasks ..."
    held.works("after it")
    assert len(held.journal.entries("opened")) == before + 1


def test_nothing_is_unpickled_before_it_is_verified(held: Vault, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "exploded",))

    sent = held.made(None, "bomb")
    sent["body"] = base64.b64encode(pickle.dumps(([Bomb()], {}, {}))).decode()
    sent["content-type"], sent["content-encoding"] = "application/x-python-serialize", "binary"
    assert held.letter_of(held.put(sent))[1] == "integrity"
    held.works("after the bomb")
    assert not (tmp_path / "exploded").exists()


def test_an_envelope_of_a_newer_relier_waits_for_a_newer_worker(held: Vault) -> None:
    sent = held.made(None, "of tomorrow")
    task_id = sent["headers"]["id"]
    sent["headers"][HEADER] = f"2.{key_id(KEY)}.unheard-of"
    raw = held.put(sent)
    wait_for(lambda: held.events("deferred", task_id), SOON_S)
    held.redis.hset(held.keys.task(task_id), "u", MOST_DEFERRALS_OF_NEWER)
    letter_id, reason, error = held.letter_of(raw)
    assert (letter_id, reason) == (task_id, "integrity")
    assert "an envelope of version 2" in error
    held.works("after tomorrow")


def _replay(held: Vault, replays: int, body: str) -> tuple[str, bytes]:
    """Put a committed task, whose message was changed since, where its next holder finds it."""
    sent = held.made(None, "committed")
    sent["body"] = base64.b64encode(body.encode()).decode()
    raw = json.dumps(sent).encode()
    saved = outcome.encode(Outcome("SUCCESS", Value("application/json", "utf-8", b'"done"')))
    element = f"{replays}|0|{sent['headers']['rl_token']}|{len(saved)}|".encode()
    held.redis.lpush(held.keys.replay(vault.QUEUE), element + saved + b"|" + raw)
    return sent["headers"]["id"], raw


@pytest.mark.slow
def test_what_follows_from_an_outcome_is_not_read_from_a_changed_message(held: Vault) -> None:
    forged = {"task": "open", "args": ["forged"], "kwargs": {}, "options": {}}
    task_id, raw = _replay(held, 3, json.dumps([["x"], {}, {"callbacks": [forged]}]))
    wait_for(lambda: held.events("replay", ""), SOON_S, "left to a worker that may know the key")
    letter_id, reason, error = held.letter_of(raw)
    assert (letter_id, reason) == (task_id, "consequences")
    assert f"PayloadIntegrityError: the message {CHANGED}" in error
    assert held.redis.get(f"celery-task-meta-{task_id}") is None
    held.works("after the replay")
    assert not held.journal.count("opened", "forged")


def test_a_released_letter_is_signed_anew(held: Vault, tmp_path: Path) -> None:
    antidote = tmp_path / "antidote"
    sent = held.app.tasks["fatal"].push(str(antidote))
    wait_for(lambda: held.redis.exists(held.keys.dead_letter(vault.QUEUE, sent.id)), SOON_S)
    shown = json.loads(held.rl("dlq", "inspect", sent.id, "--json").stdout)
    signature = {"verdict": "verified", "version": 1, "key_id": key_id(KEY)}
    assert shown["signature"] == signature
    assert f"verified, key {key_id(KEY)} (envelope 1)" in held.rl("dlq", "inspect", sent.id).stdout
    assert json.loads(held.rl("tasks", "inspect", sent.id, "--json").stdout)["signature"] == (
        signature
    )

    keyless = held.rl("dlq", "release", sent.id, keys="", required=False)
    assert keyless.exit_code == 1
    assert "set RELIER_SECRET_KEY here" in keyless.stderr
    antidote.touch()
    assert held.rl("dlq", "release", sent.id).exit_code == 0
    held.redis.delete(f"celery-task-meta-{sent.id}")
    wait_for(lambda: held.app.AsyncResult(sent.id).successful(), SOON_S)


def test_a_letter_that_does_not_verify_is_not_laundered(held: Vault) -> None:
    sent = held.made(held.producer(secret_key=FOREIGN), "vouched for")
    letter_id, _, _ = held.letter_of(held.put(sent))
    refused = held.rl("dlq", "release", letter_id)
    assert refused.exit_code == 1
    assert f"signed by key {key_id(FOREIGN)}" in refused.stderr
    assert "--trust" in refused.stderr
    assert "unknown key" in held.rl("dlq", "inspect", letter_id).stdout
    assert not held.journal.count("opened", "vouched for")
    assert held.rl("dlq", "release", letter_id, "--trust").exit_code == 0
    wait_for(lambda: held.journal.count("opened", "vouched for") == 1, SOON_S)


@pytest.mark.slow
def test_unsigned_messages_run_where_no_signature_is_asked_for(held: Vault) -> None:
    held.worker.stop()
    lenient = held.start("lenient", KEY, required=False)
    try:
        assert held.producer().tasks["open"].push("lent").get(SOON_S) == "lent"
        # A stock worker that retries copies every header it does not know.
        retried = held.made(None, "retried elsewhere")
        retried["headers"]["retries"] = 1
        retried["properties"]["delivery_tag"] = "of the stock worker"
        held.put(retried)
        wait_for(lambda: held.journal.count("opened", "retried elsewhere") == 1, SOON_S)
        _, reason, error = held.letter_of(held.put(_tampered(held)))
        assert reason == "integrity", error
    finally:
        lenient.stop()
        held.worker.start()


@pytest.mark.slow
def test_keys_are_rotated_under_a_live_fleet(held: Vault) -> None:
    held.worker.stop()
    former, present = (held.producer(secret_key=each) for each in (FORMER, KEY))
    halfway = [held.start("one", FORMER, KEY), held.start("two", KEY, FORMER)]
    words = [f"rotated {n}" for n in range(60)]
    receipts = [
        (former if n % 2 else present).tasks["open"].push(word) for n, word in enumerate(words)
    ]
    assert [each.get(SOON_S) for each in receipts] == words
    parents = {
        entry.fields[2] for entry in held.journal.entries("opened") if entry.fields[1] in words
    }
    assert parents == {str(each.pid) for each in halfway}, "both ran what either key signed"
    for each in halfway:
        each.stop()

    # The former key is dropped; what it had signed waits in the dead letters for somebody's word.
    held.worker = held.start("three", KEY)
    letter_id, _, error = held.letter_of(held.put(held.made(former, "late")))
    assert f"signed by key {key_id(FORMER)}" in error
    assert held.rl("dlq", "release", letter_id, keys=f"{KEY},{FORMER}").exit_code == 0
    wait_for(lambda: held.journal.count("opened", "late") == 1, SOON_S)
