"""The operations of a key that guards a block of code."""

from __future__ import annotations

from typing import Any, NamedTuple

from relier.protocol.identity import Claim
from relier.store.keys import Keys
from relier.store.operations import Operation, text
from relier.store.scripts import load

_LOCK, _UNLOCK = load("lock"), load("unlock")


class Asked(NamedTuple):
    """The server's answer to ``lock``.

    Args:
        verdict: "mine", "done" (there is a result), "busy", "own" (this very task holds it),
            "stale" (the task lost its claim).
        result: what an earlier use left, encoded.
        wait_ms: when to ask again at the latest.
    """

    verdict: str
    result: bytes = b""
    wait_ms: int = 0


def lock(keys: Keys, name: str, token: str, lease_ms: int, claim: Claim | None) -> Operation[Asked]:
    """Ask for a lock, or keep it for longer.

    Args:
        token: of this use; nobody else has it.
        lease_ms: how long it is ours without a claim, unless it is renewed.
        claim: of the task in which the block runs: then the lock lives as long as that.
    """
    claims, number = (keys.claims(claim.queue, claim.worker), claim.number) if claim else ("", "")
    return Operation(_LOCK, _keys(keys, name, claim), [token, lease_ms, claims, number], _asked)


def unlock(
    keys: Keys, name: str, token: str, result: bytes, ttl_ms: int, claim: Claim | None
) -> Operation[bool]:
    """Leave a lock, with a result or (b"") without one; False when it was not ours any more."""
    return Operation(_UNLOCK, _keys(keys, name, claim), [token, result, ttl_ms], bool)


def _keys(keys: Keys, name: str, claim: Claim | None) -> list[str]:
    return [keys.lock(name), keys.worker(claim.worker)] if claim else [keys.lock(name)]


def _asked(reply: list[Any]) -> Asked:
    verdict = text(reply[0])
    if verdict == "done":
        return Asked(verdict, result=reply[1])
    return Asked(verdict, wait_ms=int(reply[1])) if verdict == "busy" else Asked(verdict)
