"""The server itself: its clock, what it tells of itself, and its errors as ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from redis import exceptions

from relier.errors import RedisConnectionError, RelierError
from relier.store.address import Address
from relier.store.client import Store, judge
from relier.store.reading.replies import PAGE, redis_of, text

_UNWELCOME = (
    exceptions.AuthenticationError,
    exceptions.AuthorizationError,
    exceptions.NoPermissionError,
    exceptions.ReadOnlyError,
)


@contextmanager
def answered(address: Address) -> Iterator[None]:
    """Raise our errors in place of redis-py's.

    Raises:
        RedisConnectionError: the server is away, silent, or refuses our credentials.
        RedisPermissionError: it does not let this user do that.
        RelierError: it refuses a command.
    """
    try:
        yield
    except _UNWELCOME as error:
        judge(error, address, out_of_time=True)
    except (exceptions.ConnectionError, exceptions.TimeoutError) as error:
        raise RedisConnectionError(
            f"Redis at {address.public} cannot be reached ({error}). "
            "Check that it runs, or name another server with --url or RELIER_REDIS_URL."
        ) from error
    except exceptions.RedisError as error:
        raise RelierError(
            f"Redis at {address.public} refused a command ({error}). "
            "Check the permissions of the user in the URL, and that this database is relier's."
        ) from error


def now_ms(store: Store) -> int:
    """Return the server's clock."""
    seconds, micros = redis_of(store).time()
    return int(seconds) * 1000 + int(micros) // 1000


def info(store: Store) -> dict[str, Any]:
    """Return what INFO tells of the server."""
    found: dict[str, Any] = redis_of(store).info()
    return found


def load_script(store: Store, source: str) -> str:
    """Load a script into the server's cache; return its digest.

    Raises:
        RelierError: the server does not compile it, or may not be asked to.
    """
    try:
        return str(text(redis_of(store).script_load(source)))
    except exceptions.ResponseError as error:
        raise RelierError(str(error)) from error


def remove_prefixed(store: Store) -> int:
    """Delete every key under this store's prefix; for a prefix that was made for one run.

    Raises:
        ValueError: there is no prefix, so it would be every key of the database.
    """
    if not store.keys.prefix:
        raise ValueError("no prefix")
    names = list(redis_of(store).scan_iter(match=f"{store.keys.prefix}*", count=1000))
    for start in range(0, len(names), PAGE):
        redis_of(store).unlink(*names[start : start + PAGE])
    return len(names)
