"""What a setting must be beyond its type, and what one setting needs of another."""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit

from relier.config.settings import Settings, keys_in
from relier.config.table import SHORTEST_SECRET_BYTES
from relier.errors import ConfigurationError

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


def check_timeouts(soft_s: float | None, hard_s: float | None) -> None:
    """Raise a ConfigurationError for a soft timeout that comes too late."""
    if soft_s is not None and hard_s is not None and soft_s >= hard_s:
        raise ConfigurationError(
            f"RELIER_SOFT_TIMEOUT ({soft_s:g}) is not below RELIER_HARD_TIMEOUT ({hard_s:g}): no "
            "task would live to see it; lower the first or raise the second"
        )


def check_together(settings: Settings) -> None:
    """Raise a ConfigurationError for a setting that lacks another."""
    if settings.checkpoint_backend == "filesystem" and settings.checkpoint_dir is None:
        raise ConfigurationError(
            "RELIER_CHECKPOINT_BACKEND is 'filesystem', which needs a folder: set "
            "RELIER_CHECKPOINT_DIR to one that every worker of the fleet shares"
        )
    if settings.require_signature and not settings.secret_key:
        raise ConfigurationError(
            "RELIER_REQUIRE_SIGNATURE is on, but there is no key to verify with: set "
            "RELIER_SECRET_KEY here, in every producer and in every worker"
        )
