"""What of a setting must not reach a log or a terminal."""

from __future__ import annotations

import re

SECRETS = frozenset({"redis_password", "secret_key"})


def masked(name: str, value: object) -> object:
    """Hide what must not reach a log or a terminal."""
    if name in SECRETS and value is not None:
        return "***"
    if name == "redis_url" and isinstance(value, str):
        return _without_password(value)
    return value


def _without_password(url: str) -> str:
    # By pattern: a password with a stray slash or hash makes an address that does not parse.
    url = re.sub(r"(://[^:@/]*):.*@", r"\1:***@", url)
    return re.sub(r"(password=)[^&]*", r"\1***", url)
