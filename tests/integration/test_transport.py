"""kombu on relier's transport: what plain kombu users do, on plain connections and on an app's."""

from __future__ import annotations

import secrets
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kombu
import pytest
import redis
from amqp import ChannelError
from celery import Celery
from kombu.asynchronous.hub import Hub

from relier import Relier
from relier.store.embedded import EmbeddedServer
from relier.worker import transport
from relier.worker.channel import Channel
from relier.worker.plainchannel import PlainChannel
from support.wait import wait_for

EVENT_S = 5.0
NOTHING_S = 0.2

Connect = Callable[..., kombu.Connection]


@contextmanager
def app_of(url: str, **options: Any) -> Iterator[Celery]:
    """Make an app under relier, and leave the fleet in the end."""
    app = Celery("transport", broker=url, set_as_current=False)
    app.conf.broker_transport_options = options
    relier = Relier(app, env="development")
    try:
        yield app
    finally:
        relier.membership.leave()
        app.close()


@contextmanager
def connected(kind: str, url: str, **options: Any) -> Iterator[kombu.Connection]:
    """Open a connection: "plain", as any kombu user does, or "app", as a Celery worker does."""
    if kind == "plain":
        transport.register()
        with kombu.Connection(f"relier+{url}", transport_options=options) as connection:
            yield connection
    else:
        with app_of(url, **options) as app, app.connection_for_read() as connection:
            yield connection


@pytest.fixture(params=["plain", "app"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def connection(kind: str, redis_url: str) -> Iterator[kombu.Connection]:
    with connected(kind, redis_url) as opened:
        yield opened


@pytest.fixture
def queue() -> kombu.Queue:
    name = f"transport-{secrets.token_hex(4)}"
    return kombu.Queue(name, kombu.Exchange(name), routing_key=name)


def publish(connection: kombu.Connection, queue: kombu.Queue, *bodies: Any, **options: Any) -> None:
    producer = connection.Producer(auto_declare=False)
    for body in bodies:
        producer.publish(
            body,
            exchange=queue.exchange,
            routing_key=queue.routing_key,
            declare=[queue],
            **options,
        )


def publish_task(connection: kombu.Connection, queue: str, **headers: Any) -> str:
    """Publish what Celery would: a message whose headers name a task."""
    task_id = secrets.token_hex(8)
    connection.Producer().publish(
        [[], {}, {}],
        routing_key=queue,
        exchange="",
        headers={"task": "transport.nothing", "id": task_id, **headers},
        declare=[kombu.Queue(queue)],
    )
    return task_id


def drained(connection: kombu.Connection, *, ack: bool = True) -> tuple[list[Any], Any]:
    """Return a list that fills with bodies, and the callback that fills it."""
    bodies: list[Any] = []

    def receive(body: Any, message: Any) -> None:
        bodies.append(body)
        if ack:
            message.ack()

    return bodies, receive


def drain(connection: kombu.Connection, timeout_s: float = EVENT_S) -> None:
    connection.drain_events(timeout=timeout_s)


def nothing_comes(connection: kombu.Connection) -> None:
    with pytest.raises(socket.timeout):
        drain(connection, NOTHING_S)


def claims(client: redis.Redis) -> list[bytes]:
    return [key for key in client.scan_iter("*rl:{*") if b":claims:" in key]


def test_an_apps_channels_claim_and_plain_ones_do_not(
    kind: str, connection: kombu.Connection
) -> None:
    expected = Channel if kind == "app" else PlainChannel
    assert type(connection.default_channel) is expected
    assert type(connection.clone().default_channel) is expected


# -- simple queues


def test_put_get_ack(connection: kombu.Connection, client: redis.Redis) -> None:
    with closing(connection.SimpleQueue("simple")) as simple:
        simple.put({"n": 1}, headers={"k": "v"})
        message = simple.get(timeout=EVENT_S)
        assert (message.payload, message.headers) == ({"n": 1}, {"k": "v"})
        message.ack()
        with pytest.raises(simple.Empty):
            simple.get_nowait()
    connection.close()
    wait_for(lambda: not claims(client), EVENT_S)
    assert not client.exists("unacked")


@pytest.mark.parametrize("give_back", ["requeue", "reject"])
def test_requeue(connection: kombu.Connection, give_back: str) -> None:
    with closing(connection.SimpleQueue("simple")) as simple:
        simple.put("first")
        simple.put("second")
        message = simple.get_nowait()
        message.requeue() if give_back == "requeue" else message.reject(requeue=True)
        order = [simple.get_nowait(), simple.get_nowait()]
        assert [message.payload for message in order] == ["second", "first"]
        for each in order:
            each.ack()


def test_reject(connection: kombu.Connection) -> None:
    with closing(connection.SimpleQueue("simple")) as simple:
        simple.put("refused")
        simple.get_nowait().reject()
        with pytest.raises(simple.Empty):
            simple.get_nowait()


def test_a_closed_channel_gives_back_what_it_holds(
    connection: kombu.Connection, queue: kombu.Queue
) -> None:
    publish(connection, queue, "held")
    with connection.channel() as channel:
        assert queue(channel).get().payload == "held"
        assert queue(connection.default_channel).get() is None
    assert queue(connection.default_channel).get(no_ack=True).payload == "held"


def test_basic_get(connection: kombu.Connection, queue: kombu.Queue) -> None:
    bound = queue(connection.default_channel)
    bound.declare()
    assert bound.get() is None
    publish(connection, queue, "one", "two")
    assert bound.get(no_ack=True).payload == "one"
    message = bound.get()
    assert message.payload == "two"
    message.ack()
    assert bound.get() is None


# -- consumers


def test_one_event_for_each_drain(connection: kombu.Connection, queue: kombu.Queue) -> None:
    bodies, receive = drained(connection)
    publish(connection, queue, 1, 2, 3)
    with connection.Consumer(queue, callbacks=[receive]):
        for n in (1, 2, 3):
            drain(connection)
            assert bodies == list(range(1, n + 1))
        nothing_comes(connection)


def test_a_consumer_that_does_not_acknowledge(
    connection: kombu.Connection, queue: kombu.Queue, client: redis.Redis
) -> None:
    bodies, receive = drained(connection, ack=False)
    with connection.Consumer(queue, callbacks=[receive], no_ack=True):
        publish(connection, queue, "a", "b")
        drain(connection)
        drain(connection)
    assert bodies == ["a", "b"]
    assert not claims(client)


def test_both_kinds_of_consumer_on_one_channel(
    connection: kombu.Connection, client: redis.Redis
) -> None:
    acked, receive = drained(connection)
    unacked, receive_only = drained(connection, ack=False)
    queues = [kombu.Queue(name, routing_key=name) for name in ("careful", "careless")]
    channel = connection.default_channel
    with (
        kombu.Consumer(channel, queues[0], callbacks=[receive]),
        kombu.Consumer(channel, queues[1], callbacks=[receive_only], no_ack=True),
    ):
        for n in range(3):
            publish(connection, queues[0], n)
            publish(connection, queues[1], n)
        for _ in range(6):
            drain(connection)
    assert (acked, unacked) == ([0, 1, 2], [0, 1, 2])
    connection.close()
    assert not claims(client)


def test_several_consumers_share_a_queue(kind: str, redis_url: str, queue: kombu.Queue) -> None:
    with connected(kind, redis_url) as one, connected(kind, redis_url) as other:
        bodies, receive = drained(one)
        publish(one, queue, *range(20))
        with one.Consumer(queue, callbacks=[receive]), other.Consumer(queue, callbacks=[receive]):
            for _ in range(10):
                drain(one)
                drain(other)
    assert sorted(bodies) == list(range(20))


def test_prefetch_can_be_held_to_the_last_message(redis_url: str, queue: kombu.Queue) -> None:
    """A consumer that acknowledges in batches gets as many messages as it has credit for."""
    with connected("app", redis_url) as connection:
        bodies, receive = drained(connection, ack=False)
        publish(connection, queue, *range(12))
        hub = Hub()
        with connection.Consumer(queue, callbacks=[receive], prefetch_count=10) as consumer:
            connection.register_with_event_loop(hub)
            hub.call_repeatedly(0.05, lambda: None)
            wait_for(lambda: hub.run_once() or len(bodies) >= 10, EVENT_S)
            assert bodies == list(range(10)), "more than there was credit for"
            consumer.recover(requeue=True)
        hub.close()


def test_what_a_consumer_did_not_take_stays(
    connection: kombu.Connection, queue: kombu.Queue
) -> None:
    publish(connection, queue, *range(5))
    bodies, receive = drained(connection)
    with connection.Consumer(queue, callbacks=[receive]):
        drain(connection)
    connection.close()
    assert bodies == [0]
    assert queue(connection.default_channel).queue_declare(passive=True).message_count == 4


# -- routing


def test_direct_exchange(connection: kombu.Connection) -> None:
    exchange = kombu.Exchange("direct")
    queues = [kombu.Queue(f"direct-{key}", exchange, routing_key=key) for key in "ab"]
    for queue in queues:
        queue(connection.default_channel).declare()
    connection.Producer(exchange=exchange).publish("to a", routing_key="a")
    connection.Producer(exchange=exchange).publish("to nobody", routing_key="c")
    bound_a, bound_b = (queue(connection.default_channel) for queue in queues)
    assert bound_a.get(no_ack=True).payload == "to a"
    assert bound_a.get() is None
    assert bound_b.get() is None


def test_topic_exchange(connection: kombu.Connection) -> None:
    exchange = kombu.Exchange("topic", type="topic")
    queues = {key: kombu.Queue(f"topic-{key}", exchange, routing_key=key) for key in ("t.*", "t")}
    bound = {key: queue(connection.default_channel) for key, queue in queues.items()}
    for each in bound.values():
        each.declare()
    connection.Producer(exchange=exchange).publish("news", routing_key="t.1")
    assert bound["t.*"].get(no_ack=True).payload == "news"
    assert bound["t"].get() is None


def test_fanout_exchange(connection: kombu.Connection) -> None:
    exchange = kombu.Exchange("fanout", type="fanout")
    queues = [kombu.Queue(f"fanout-{n}", exchange) for n in range(2)]
    heard: list[tuple[int, Any]] = []
    consumers = []
    for n, queue in enumerate(queues):
        channel = connection.channel()
        consumer = kombu.Consumer(channel, queue, no_ack=True)
        consumer.register_callback(lambda body, _message, n=n: heard.append((n, body)))
        consumer.consume()
        consumers.append(consumer)
    nothing_comes_but_subscriptions(connection)
    connection.Producer(exchange=exchange).publish("all hands")
    wait_for(lambda: drain_quietly(connection) or len(heard) == 2, EVENT_S)
    assert sorted(heard) == [(0, "all hands"), (1, "all hands")]


def drain_quietly(connection: kombu.Connection) -> None:
    try:
        drain(connection, NOTHING_S)
    except TimeoutError:
        pass


def nothing_comes_but_subscriptions(connection: kombu.Connection) -> None:
    subscribed = connection.default_channel.client
    wait_for(
        lambda: drain_quietly(connection) or subscribed.execute_command("PUBSUB", "NUMPAT") >= 1,
        EVENT_S,
    )


def test_priorities(connection: kombu.Connection, queue: kombu.Queue) -> None:
    for body, priority in (("last", 9), ("third", 6), ("first", 0), ("second", 3), ("fourth", 6)):
        publish(connection, queue, body, priority=priority)
    bodies, receive = drained(connection)
    with connection.Consumer(queue, callbacks=[receive]):
        for _ in range(5):
            drain(connection)
    assert bodies == ["first", "second", "third", "fourth", "last"]


def test_messages_may_be_batched_and_tasks_leave_at_once(
    connection: kombu.Connection, client: redis.Redis
) -> None:
    producer = connection.Producer()
    with producer.batch():
        producer.publish("plain", routing_key="batched", exchange="")
        assert client.llen("batched") == 0
        publish_task(connection, "tasks")
        assert client.llen("tasks") == 1
    assert client.llen("batched") == 1


# -- what a queue holds


def test_sizes_count_what_is_scheduled(connection: kombu.Connection, client: redis.Redis) -> None:
    publish_task(connection, "sized")
    publish_task(connection, "sized", eta="2099-01-01T00:00:00+00:00")
    channel = connection.default_channel
    assert (client.llen("sized"), client.zcard("rl:{sized}:scheduled")) == (1, 1)
    assert channel.queue_declare("sized", passive=True).message_count == 2
    assert channel.queue_purge("sized") == 2
    assert channel.queue_purge("sized") == 0
    with pytest.raises(ChannelError):
        channel.queue_declare("sized", passive=True)


def test_a_deleted_queue_keeps_nothing_scheduled(
    connection: kombu.Connection, client: redis.Redis
) -> None:
    channel = connection.default_channel
    kombu.Queue("gone", kombu.Exchange("gone"), routing_key="gone")(channel).declare()
    publish_task(connection, "gone", eta="2099-01-01T00:00:00+00:00")
    channel.queue_delete("gone", if_empty=True)
    assert client.exists("rl:{gone}:scheduled")
    channel.queue_delete("gone")
    assert not client.exists("rl:{gone}:scheduled")


def test_a_plain_connection_enqueues_tasks(redis_url: str, client: redis.Redis) -> None:
    with connected("plain", redis_url) as connection:
        task_id = publish_task(connection, "tasks")
    assert client.hget(f"rl:task:{task_id}", "s") == b"q"


# -- connections


def test_clones_and_heartbeats(connection: kombu.Connection) -> None:
    with connection.clone() as other:
        assert other.as_uri() == connection.as_uri()
        with closing(other.SimpleQueue("cloned")) as simple:
            simple.put("hello")
        other.heartbeat_check()
    with closing(connection.SimpleQueue("cloned")) as simple:
        simple.get(timeout=EVENT_S).ack()


def test_a_key_prefix_is_before_every_key(
    kind: str, redis_url: str, client: redis.Redis, queue: kombu.Queue
) -> None:
    with connected(kind, redis_url, global_keyprefix="shop:") as connection:
        publish_task(connection, "prefixed")
        publish_task(connection, "prefixed", eta="2099-01-01T00:00:00+00:00")
        publish(connection, queue, "one", "two", priority=3)
        bodies, receive = drained(connection)
        with connection.Consumer(queue, callbacks=[receive]):
            drain(connection)
            drain(connection)
        assert bodies == ["one", "two"]
        assert connection.default_channel.queue_declare("prefixed", passive=True).message_count == 2
        assert connection.default_channel.queue_purge("prefixed") == 2
        publish_task(connection, "prefixed")
        publish(connection, queue, "three")
    strays = [key for key in client.scan_iter("*") if not key.startswith(b"shop:")]
    assert not strays


def test_a_unix_socket(kind: str, server: EmbeddedServer, client: redis.Redis) -> None:
    url = f"redis+socket://{server.unix_path}?virtual_host=5"
    with connected(kind, url) as connection, closing(connection.SimpleQueue("local")) as simple:
        simple.put("near")
        publish_task(connection, "tasks")
        simple.get(timeout=EVENT_S).ack()
    with redis.Redis(unix_socket_path=str(server.unix_path), db=5) as database:
        assert database.llen("tasks") == 1
    assert not client.exists("tasks")


@pytest.fixture
def guarded(fresh_server: EmbeddedServer) -> str:
    """The address of a server that asks for a password."""
    with redis.Redis.from_url(fresh_server.url) as admin:
        admin.config_set("requirepass", "s3cret/:@")
    return f"127.0.0.1:{fresh_server.port}/0"


def test_a_password(kind: str, guarded: str) -> None:
    url = f"redis://:s3cret%2F%3A%40@{guarded}"
    with connected(kind, url) as connection, closing(connection.SimpleQueue("locked")) as simple:
        simple.put("inside")
        publish_task(connection, "tasks")
        simple.get(timeout=EVENT_S).ack()
        with connection.clone() as other:
            other.ensure_connection(max_retries=1)
        # `celery inspect stats` shows all of this but the password itself.
        shown = {key: value for key, value in connection.info().items() if key != "password"}
        assert "s3cret" not in f"{shown} {connection.as_uri()} {connection!r}"
        assert connection.as_uri(include_password=True) == f"relier+{url}"


def test_a_wrong_password(kind: str, guarded: str) -> None:
    with (
        connected(kind, f"redis://:wrong@{guarded}") as connection,
        pytest.raises(redis.AuthenticationError),
    ):
        connection.connect()


def test_failover_to_an_alternate(redis_url: str) -> None:
    transport.register()
    dead = "relier+redis://127.0.0.1:1/0"
    with kombu.Connection(f"{dead};relier+{redis_url}") as connection:
        connection.ensure_connection(max_retries=2, interval_start=0, interval_step=0)
        assert connection.port == urlsplit(redis_url).port
        with closing(connection.SimpleQueue("alternate")) as simple:
            simple.put("found")
            publish_task(connection, "tasks")
            simple.get(timeout=EVENT_S).ack()


# -- TLS: Debian's server has it, the embedded one does not


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The address of a TLS server, and the certificate it signed itself."""
    binary = Path("/usr/bin/redis-server")
    if not binary.exists():
        pytest.skip("TLS needs Debian's redis-server")
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "tls.crt", folder / "tls.key"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "1", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [
            *(str(binary), "--port", "0", "--tls-port", str(port), "--bind", "127.0.0.1"),
            *("--tls-cert-file", str(certificate), "--tls-key-file", str(key)),
            *("--tls-ca-cert-file", str(certificate), "--tls-auth-clients", "no"),
            *("--dir", str(folder), "--appendonly", "yes", "--save", ""),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with redis.Redis(port=port, ssl=True, ssl_ca_certs=str(certificate)) as probe_client:
            wait_for(lambda: answers(probe_client), EVENT_S)
        yield f"127.0.0.1:{port}/0", certificate
    finally:
        server.terminate()
        server.wait(EVENT_S)


def answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


@pytest.mark.parametrize("reqs", ["required", "CERT_REQUIRED", "none", "CERT_NONE"])
def test_tls(kind: str, secure: tuple[str, Path], reqs: str) -> None:
    address, certificate = secure
    url = f"rediss://{address}?ssl_cert_reqs={reqs}&ssl_ca_certs={certificate}"
    with connected(kind, url) as connection, closing(connection.SimpleQueue("tls")) as simple:
        simple.put("sealed")
        publish_task(connection, "tls-tasks")
        simple.get(timeout=EVENT_S).ack()
        with connection.clone() as other, closing(other.SimpleQueue("tls")) as again:
            again.put("sealed")
            again.get(timeout=EVENT_S).ack()


def test_tls_by_setting(secure: tuple[str, Path]) -> None:
    address, certificate = secure
    app = Celery("tls", broker=f"rediss://{address}", set_as_current=False)
    app.conf.broker_use_ssl = {"ssl_ca_certs": str(certificate), "ssl_cert_reqs": "required"}
    relier = Relier(app, env="development")
    with app.connection_for_read() as connection, closing(connection.SimpleQueue("tls")) as simple:
        simple.put("sealed")
        publish_task(connection, "tls-tasks")
        simple.get(timeout=EVENT_S).ack()
    relier.membership.leave()


def test_a_certificate_that_nobody_vouches_for(kind: str, secure: tuple[str, Path]) -> None:
    with (
        connected(kind, f"rediss://{secure[0]}") as connection,
        pytest.raises(redis.ConnectionError, match="certificate"),
    ):
        connection.connect()
