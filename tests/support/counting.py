"""A result backend that counts the parts of a chord by incrementing, as Celery's for Memcached."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import redis
from celery.backends.base import KeyValueStoreBackend


class CountingBackend(KeyValueStoreBackend):
    """Keep results in a Redis database by nothing but get, set, delete and incr."""

    implements_incr = True

    def __init__(self, *args: Any, url: str = "", **kwargs: Any) -> None:
        super().__init__(*args, url=url, **kwargs)
        self._client = redis.Redis.from_url(url)

    def get(self, key: Any) -> Any:
        return self._client.get(key)

    def mget(self, keys: Iterable[Any]) -> Any:
        return self._client.mget(list(keys))

    def set(self, key: Any, value: Any) -> None:
        self._client.set(key, value)

    def delete(self, key: Any) -> None:
        self._client.delete(key)

    def incr(self, key: Any) -> Any:
        return self._client.incr(key)
