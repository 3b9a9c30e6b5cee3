"""Store results in the same step as the commit, where the result backend is the broker's server."""

from __future__ import annotations

from typing import Any

from celery import states
from celery.backends.redis import RedisBackend
from kombu.transport.redis import Transport
from kombu.utils.encoding import bytes_to_str

from relier.errors import ConfigurationError
from relier.store.address import Address
from relier.store.running import StoredResult


def is_connection_error(error: Exception) -> bool:
    """Return whether a Redis client could not reach its server, or the server was in trouble."""
    return isinstance(error, (*Transport.connection_errors, *Transport.channel_errors)) and (
        not isinstance(error, KeyError | ValueError)
    )


def fused(backend: Any, broker: Address) -> bool:
    """Return whether a backend stores plain results in the broker's own server and database."""
    stock = isinstance(backend, RedisBackend) and type(backend).set is RedisBackend.set
    if not stock or not backend.url:
        return False
    try:
        return Address.parse(backend.url).server == broker.server
    except (ConfigurationError, ValueError):
        return False


def stored_result(backend: Any, request: Any, state: str, result: Any, tb: str | None) -> Any:
    """Return the result as the backend would store it.

    Raises:
        kombu.exceptions.EncodeError: the result cannot be serialised.
    """
    encoded = backend.encode_result(result, state)
    meta = backend._get_result_meta(result=encoded, state=state, traceback=tb, request=request)
    meta["task_id"] = bytes_to_str(request.id)
    ttl_s = backend.expires
    if state == states.FAILURE and getattr(backend, "failure_expires", None) is not None:
        ttl_s = backend.failure_expires
    key = bytes_to_str(backend.get_key_for_task(request.id))
    return StoredResult(key, int(ttl_s or 0), backend.encode(meta))
