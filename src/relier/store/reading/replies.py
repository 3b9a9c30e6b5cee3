"""What the readers share: the connection, a page, and text from bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from relier.store.client import Store

PAGE = 200
"""How many elements one command asks for."""


def redis_of(store: Store) -> Any:
    """Return the store's connection, untyped."""
    # redis-py types one reply for every protocol and decoding; ours are always bytes.
    return store.redis


def texts(fields: Mapping[bytes, bytes]) -> dict[str, str]:
    """Return a hash's fields as text."""
    return {name.decode(): text(value) for name, value in fields.items()}


def text(value: bytes | str | None) -> str:
    """Return one value as text; "" for none."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value or ""
