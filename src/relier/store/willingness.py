"""A server that answers may take no writes all the same: tell that apart, and wait for its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redis import exceptions

if TYPE_CHECKING:
    from relier.store.client import Store

TROUBLED_WORDS = ("NOREPLICAS", "MISCONF", "BUSY", "CLUSTERDOWN", "UNKILLABLE", "UNBLOCKED")
"""Replies of a server that is in trouble now and may not be in a moment."""

_UNWILLING = (exceptions.BusyLoadingError, exceptions.ReadOnlyError, exceptions.MasterDownError)


class TroubledError(exceptions.ResponseError):
    """A reply in which the server says that it is in trouble now; redis-py has no class for it."""


def telling(connection_class: type[Any]) -> type[Any]:
    """Return a class of connections that raise trouble of the server as a `TroubledError`."""

    class Telling(connection_class):
        def read_response(self, *args: Any, **kwargs: Any) -> Any:
            try:
                return super().read_response(*args, **kwargs)
            except exceptions.ResponseError as error:
                if type(error) is exceptions.ResponseError and is_troubled(error):
                    raise TroubledError(str(error)) from None
                raise

    return Telling


def unwillingness(store: Store) -> str:
    """Return why the server takes no writes now, though it answers; "" when it takes them.

    Also "" when it is away or refuses us: whoever connects is told of that.
    """
    try:
        # Removes nothing, needs no room, and is a write all the same.
        store.redis.srem(store.keys.workers, "")
    except _UNWILLING as error:
        reason = str(error)
    except exceptions.RedisError as error:
        reason = str(error) if is_troubled(error) else ""
    else:
        return ""
    # The next look is at whichever server the address leads to by then.
    store.redis.connection_pool.disconnect(inuse_connections=False)
    return reason


def is_troubled(error: Exception) -> bool:
    """Return whether a reply says so, in words for which redis-py has no class."""
    return str(error).startswith(TROUBLED_WORDS)
