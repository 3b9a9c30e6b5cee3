"""kombu's Redis transport with claims in place of BRPOP, and enqueue in place of LPUSH.

Everything that is not a task message (replies, events, remote control) keeps kombu's own way.
"""

from __future__ import annotations

import logging
import os
from typing import Any
from urllib.parse import urlsplit

from kombu.transport import TRANSPORT_ALIASES
from kombu.transport import redis as kombu_redis
from kombu.utils.url import as_url, maybe_sanitize_url, parse_url
from redis import exceptions

from relier import config
from relier.errors import RedisConnectionError
from relier.store.address import Address
from relier.store.broker import Broker
from relier.store.willingness import TroubledError
from relier.worker.channel import Channel
from relier.worker.membership import Membership
from relier.worker.plainchannel import PlainChannel
from relier.worker.poller import Poller

logger = logging.getLogger(__name__)

SCHEME = "relier"
OPTION = "relier"
"""The transport option that carries the process's membership."""

_SCHEMES = (f"{SCHEME}+redis", f"{SCHEME}+rediss")
_READ_BY_KOMBU = {"transport", "hostname", "port", "userid", "password", "virtual_host", "ssl"}


def register() -> None:
    """Make kombu know ``relier+redis://`` and its like; ``redis://`` stays as it is."""
    for scheme in (SCHEME, *_SCHEMES):
        TRANSPORT_ALIASES[scheme] = "relier.worker.transport:Transport"


class Transport(kombu_redis.Transport):
    """The transport behind ``relier+redis://`` and its like."""

    can_parse_url = True
    # A server that takes no writes now may be none that should be spoken to: connect again, and
    # wait there. Celery ends a worker of any error that is not among these.
    connection_errors = (
        *kombu_redis.Transport.connection_errors,
        RedisConnectionError,
        exceptions.ReadOnlyError,
        exceptions.MasterDownError,
        exceptions.OutOfMemoryError,
        TroubledError,
    )
    # Publishing retries in the store, within the socket timeout; kombu must not add to that.
    recoverable_connection_errors = kombu_redis.Transport.connection_errors
    recoverable_channel_errors = kombu_redis.Transport.channel_errors

    def __init__(self, client: Any, **kwargs: Any) -> None:
        super().__init__(client, **kwargs)
        _unfold(client)
        self.membership: Membership | None = client.transport_options.get(OPTION)
        if self.membership is None:
            self.broker = plain_broker(client)
            self.Channel = PlainChannel
        else:
            self.broker = self.membership.broker
            self.Channel = Channel
            self.cycle = Poller()

    def as_uri(self, _uri: str, include_password: bool = False, mask: str = "**") -> str:
        """Return the connection's URL, without its password unless that is asked for."""
        url = _url(self.client)
        return f"{SCHEME}+{url if include_password else maybe_sanitize_url(url, mask)}"


def _unfold(connection: Any) -> None:
    """Read the URL that kombu keeps unread behind the ``+``, as it reads any other.

    A URL in place of the host name would show its password to whoever asks for
    ``celery inspect stats``. One with redis-py's own options stays as it is: kombu has no place
    for them.
    """
    url = connection.hostname or ""
    scheme = urlsplit(url).scheme
    if scheme == "redis+socket":
        connection.hostname = url.removeprefix("redis+")
    if scheme not in ("redis", "rediss"):
        return
    read = parse_url(Address.parse(url).url)
    if read.keys() - _READ_BY_KOMBU:
        return
    for name in ("hostname", "port", "userid", "password", "virtual_host", "ssl"):
        found = read.get(name)
        if found or name == "hostname":
            setattr(connection, name, found)
    connection.transport_cls = f"{SCHEME}+{scheme}"
    connection.uri_prefix = None


def plain_broker(connection: Any) -> Broker:
    """Return the broker of a kombu connection that no Celery app prepared."""
    tls = connection.ssl if isinstance(connection.ssl, dict) else {}
    prefix = connection.transport_options.get("global_keyprefix", "")
    return Broker(Address.parse(_url(connection), tls), config.load(os.environ), prefix)


def _url(connection: Any) -> str:
    """Return a connection's URL; its own ``as_uri`` asks the transport that is being made here."""
    host: str = connection.hostname or ""
    if "://" in host:
        return host
    secure = connection.ssl or str(connection.transport_cls).endswith("rediss")
    password = connection.password() if callable(connection.password) else connection.password
    port = connection.port or kombu_redis.DEFAULT_PORT
    database = str(connection.virtual_host or "").strip("/")
    url: str = as_url(
        "rediss" if secure else "redis",
        host or "127.0.0.1",
        port,
        connection.userid,
        password,
        database,
    )
    return url
