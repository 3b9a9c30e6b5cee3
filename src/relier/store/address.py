"""Where the server is, and how to connect to it with timeouts that end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from relier.errors import ConfigurationError

_SCHEMES = {"redis", "rediss", "unix"}


@dataclass(frozen=True)
class Address:
    """One server and database.

    Args:
        url: a URL that redis-py reads: ``redis://``, ``rediss://`` or ``unix://``.
        options: connection options that a URL does not carry (TLS files, credentials).
    """

    url: str = field(repr=False)
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def parse(cls, url: str, options: Mapping[str, Any] | None = None) -> Address:
        """Read a broker URL as Celery and kombu write it.

        Raises:
            ConfigurationError: for a scheme that is not Redis.
        """
        parts = urlsplit(url.removeprefix("relier+"))
        scheme, query = parts.scheme, dict(parse_qsl(parts.query))
        if scheme in ("redis+socket", "socket"):
            scheme = "unix"
            if "virtual_host" in query:
                query["db"] = query.pop("virtual_host")
        if "ssl_cert_reqs" in query:
            # Celery's manual says CERT_NONE; redis-py reads none.
            query["ssl_cert_reqs"] = query["ssl_cert_reqs"].lower().removeprefix("cert_")
        if scheme not in _SCHEMES:
            raise ConfigurationError(
                f"relier needs a Redis URL, and {parts.scheme!r}:// is not one: "
                "use redis://, rediss:// or redis+socket://"
            )
        # Not urlunsplit: it drops the empty host of unix:///path.
        plain = f"{scheme}://{parts.netloc}{parts.path}"
        return cls(f"{plain}?{urlencode(query)}" if query else plain, dict(options or {}))

    @property
    def public(self) -> str:
        """Return the address without its password, for messages."""
        parts = urlsplit(self.url)
        host = parts.netloc.rpartition("@")[2]
        return f"{parts.scheme}://{host}{parts.path}"

    @property
    def tls(self) -> bool:
        """Return whether the connection is encrypted."""
        return self.url.startswith("rediss:")

    @property
    def server(self) -> tuple[str, int, int]:
        """Return (host or socket path, port, database): what makes two addresses the same."""
        kwargs = redis.connection.parse_url(self.url)
        path = kwargs.get("path")
        if path:
            return path, 0, int(kwargs.get("db") or 0)
        host = kwargs.get("host") or "localhost"
        host = "127.0.0.1" if host == "localhost" else host
        return host, int(kwargs.get("port") or 6379), int(kwargs.get("db") or 0)

    def connect(self, *, timeout_s: float, max_connections: int) -> redis.Redis:
        """Return a synchronous client. Retrying is our own affair, so redis-py must not."""
        return redis.Redis.from_url(
            self.url,
            **self._arguments(timeout_s, max_connections),
            retry=Retry(NoBackoff(), 0),
        )

    def connect_async(self, *, timeout_s: float, max_connections: int) -> redis.asyncio.Redis:
        """Return an asynchronous client; it belongs to the running event loop.

        The pool blocks when it is empty: a hundred pushes at once wait for a connection rather
        than fail for want of one.
        """
        pool = redis.asyncio.BlockingConnectionPool.from_url(
            self.url,
            **self._arguments(timeout_s, max_connections),
            timeout=timeout_s,
            retry=AsyncRetry(NoBackoff(), 0),
        )
        return redis.asyncio.Redis(connection_pool=pool)

    def _arguments(self, timeout_s: float, max_connections: int) -> dict[str, Any]:
        return {
            **self.options,
            "socket_timeout": timeout_s,
            "socket_connect_timeout": timeout_s,
            "max_connections": max_connections,
            "health_check_interval": 0,
            "protocol": 2,
        }
