"""Looks at relier's own settings."""

from __future__ import annotations

from relier.config import Settings
from relier.ops.doctor.checks import OK, WARNING, Check


def secret(settings: Settings) -> Check:
    """Look whether task messages are signed, which a server that is shared should ask for."""
    keys = len(settings.secrets)
    if keys:
        refused = "unsigned ones are refused" if settings.require_signature else "unsigned ones run"
        known = "one key" if keys == 1 else f"{keys} keys"
        return Check("signatures", OK, f"messages are signed ({known} known), {refused}")
    if settings.env == "development":
        return Check("signatures", OK, "none: RELIER_ENV is development")
    return Check(
        "signatures",
        WARNING,
        "RELIER_SECRET_KEY is not set here: who can write to Redis can have any task run",
        "set the same RELIER_SECRET_KEY in every producer and every worker, for instance to what "
        '`python -c "import secrets; print(secrets.token_urlsafe(32))"` prints',
    )
