"""What a setting must be beyond its type, and what one setting needs of another."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import SplitResult, urlsplit

from relier.config.settings import keys_in
from relier.config.table import SHORTEST_SECRET_BYTES

_DATABASE = re.compile(r"/?|/\d+/?")
REDIS_SCHEMES = ("redis", "rediss", "unix", "redis+socket")


def check_url(url: str) -> None:
    """Raise a ValueError, which quotes no password, for what is no address of a server."""
    parts = urlsplit(url)
    if parts.scheme not in REDIS_SCHEMES:
        raise ValueError(f"the scheme is none of {', '.join(REDIS_SCHEMES)}")
    if parts.scheme in ("redis", "rediss"):
        if not parts.hostname:
            raise ValueError("no host")
        _check_port(parts)
        if not _DATABASE.fullmatch(parts.path):
            # redis-py would take it for database 0, in silence.
            raise ValueError("the database behind the last slash is no number")
    elif not parts.path:
        raise ValueError("no path to the socket")


def _check_port(parts: SplitResult) -> None:
    try:
        port = parts.port
    except ValueError:
        # Not passed on: a password with a stray slash would be quoted here as the port.
        raise ValueError("the port is no number up to 65535") from None
    if port == 0:
        raise ValueError("no server listens on port 0")


def check_secrets(text: str) -> None:
    """Raise a ValueError, which quotes no key, for keys that are too short to sign with."""
    keys = keys_in(text)
    if not keys:
        raise ValueError("there is no key in it")
    for number, key in enumerate(keys, start=1):
        size = len(key.encode())
        if size < SHORTEST_SECRET_BYTES:
            raise ValueError(f"key {number} of {len(keys)} has only {size} bytes")


def contradictions(values: Mapping[str, Any]) -> Iterator[str]:
    """Yield what does not fit together among settings that are each acceptable."""
    soft_s, hard_s = values["soft_timeout_s"], values["hard_timeout_s"]
    if soft_s is not None and hard_s is not None and soft_s >= hard_s:
        yield (
            f"RELIER_SOFT_TIMEOUT ({soft_s:g}) is not below RELIER_HARD_TIMEOUT ({hard_s:g}): no "
            "task would live to see it; lower the first or raise the second"
        )
    if values["checkpoint_backend"] == "filesystem" and values["checkpoint_dir"] is None:
        yield (
            "RELIER_CHECKPOINT_BACKEND is 'filesystem', which needs a folder: set "
            "RELIER_CHECKPOINT_DIR to one that every worker of the fleet shares"
        )
    if values["require_signature"] and not values["secret_key"]:
        yield (
            "RELIER_REQUIRE_SIGNATURE is on, but there is no key to verify with: set "
            "RELIER_SECRET_KEY here, in every producer and in every worker"
        )
