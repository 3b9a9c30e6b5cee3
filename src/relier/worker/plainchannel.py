"""kombu's Redis channel at an address of ours, that enqueues the tasks it publishes."""

from __future__ import annotations

import logging
from typing import Any
from urllib.parse import urlsplit

import redis
from kombu.transport import redis as kombu_redis
from redis import exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry

from relier.store import publishing
from relier.store.address import Address
from relier.store.broker import Broker
from relier.store.willingness import telling
from relier.worker import delivery, expiry, publish

logger = logging.getLogger(__name__)


class PlainChannel(kombu_redis.Channel):
    """kombu's own channel, at an address behind ``relier+``, that enqueues the tasks it publishes.

    Connections that no app prepared have this one: what they consume is plain kombu traffic, so
    delivery, acknowledgement and redelivery are kombu's, to the letter.
    """

    def __init__(self, connection: Any, *args: Any, **kwargs: Any) -> None:
        self.broker: Broker = connection.broker
        timeout_s = self.broker.settings.redis_socket_timeout_s
        self.socket_timeout = self.socket_connect_timeout = timeout_s
        if self.broker.address.tls:
            self.connection_class = redis.SSLConnection
        super().__init__(connection, *args, **kwargs)

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        """Return connection parameters, those of a URL included that kombu has not read."""
        params: dict[str, Any] = super()._connparams(asynchronous=asynchronous)
        hostname = self.connection.client.hostname or ""
        if urlsplit(hostname).scheme in ("redis", "rediss"):
            parsed = dict(redis.connection.parse_url(Address.parse(hostname).url))
            parsed.pop("connection_class", None)
            params.update({"host": "127.0.0.1", "port": self.connection.default_port, **parsed})
        # Retrying is our own affair: a command that redis-py repeats may be done twice.
        params["retry"] = Retry(NoBackoff(), 0)
        params.pop("retry_on_timeout", None)
        params["connection_class"] = telling(params.get("connection_class", self.connection_class))
        return params

    def _queue_bind(self, exchange: str, routing_key: str, pattern: str, queue: str) -> None:
        try:
            super()._queue_bind(exchange, routing_key, pattern, queue)
        except exceptions.OutOfMemoryError:
            # Workers empty a full server: none may be kept from starting by a few bytes.
            member = self.sep.join([routing_key or "", pattern or "", queue or ""])
            table, expires = self.keyprefix_queue % (exchange,), queue in self._expires
            if expires:
                beside, ttl_ms = self.keyprefix_binding_deadlines, self._binding_ttl(queue)
            else:
                beside, ttl_ms = self.keyprefix_binding_permanent % (exchange,), None
            bind = publishing.bind(self.broker.keys, table, beside, member, exchange, ttl_ms)
            self.broker.store.run(bind)

    @property
    def supports_batch_publish(self) -> bool:
        """Return whether plain messages may be published in batches; tasks go one by one."""
        return not self.retry_on_timeout

    def _suffix(self, step: int) -> str:
        return f"{self.sep}{step}" if step else ""

    @property
    def _suffixes(self) -> list[str]:
        return [self._suffix(step) for step in self.priority_steps]

    def _put(self, queue: str, message: dict[str, Any], **kwargs: Any) -> None:
        if not publish.is_task(message):
            super()._put(queue, message, **kwargs)
            return
        headers = message["headers"]
        delay_ms = delivery.until_ms(headers["eta"]) if headers.get("eta") else 0
        suffix = self._suffix(self.priority(self._get_message_priority(message, reverse=False)))
        expires_ms = expiry.keep(headers)
        raw = publish.signed(message, self.broker.keyring)
        outgoing = publish.outgoing(message, suffix, max(delay_ms, 0), raw, expires_ms)
        suffixes = "".join(f"|{each}" for each in self._suffixes)
        publish.send(self.broker, queue, outgoing, suffixes, publish.account())
        if queue in self._expires:
            with self.conn_or_acquire() as client:
                self._maybe_update_queues_expire(client, queue)

    def _size(self, queue: str) -> int:
        """Return how many messages of a queue wait, scheduled ones included."""
        # Every queue that is declared is counted; in a transaction, as kombu does it, Redis 7.0
        # refuses even that when it is full.
        with self.conn_or_acquire() as client, client.pipeline(transaction=False) as pipe:
            for step in self.priority_steps:
                pipe.llen(self._q_for_pri(queue, step))
            waiting = sum(map(int, pipe.execute()))
        return waiting + self._scheduled(queue)

    def _has_queue(self, queue: str, **kwargs: Any) -> bool:
        return bool(super()._has_queue(queue, **kwargs)) or self._scheduled(queue) > 0

    def _scheduled(self, queue: str) -> int:
        with self.conn_or_acquire() as client:
            return int(client.execute_command("ZCARD", self.broker.keys.scheduled(queue)))

    def _purge(self, queue: str) -> int:
        """Remove waiting and scheduled messages; return how many."""
        return self._unschedule(queue) + int(super()._purge(queue))

    def _delete(self, queue: str, *args: Any, **kwargs: Any) -> None:
        try:
            self._unschedule(queue)
            try:
                super()._delete(queue, *args, **kwargs)
            except exceptions.OutOfMemoryError:
                self._drop_lists(queue)
        except exceptions.RedisError as error:
            if not self._closing:
                raise
            # A queue of its own that goes with it, empty: whatever the server says, it must close.
            logger.debug("could not delete queue %s: %s", queue, error)

    def _unschedule(self, queue: str) -> int:
        scheduled = self.broker.keys.scheduled(queue)
        with self.conn_or_acquire() as client, client.pipeline(transaction=False) as pipe:
            pipe.execute_command("ZCARD", scheduled)
            pipe.execute_command("UNLINK", scheduled)
            return int(pipe.execute()[0])

    def _drop_lists(self, queue: str) -> None:
        """Delete a queue's lists on a full server, which takes no transaction, even to delete."""
        with self.conn_or_acquire() as client:
            for step in self.priority_steps:
                client.delete(self._q_for_pri(queue, step))
