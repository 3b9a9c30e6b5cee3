"""What one look finds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from relier.errors import RedisPermissionError
from relier.store.address import Address
from relier.store.reading import answered

OK, WARNING, FAILURE, UNKNOWN = "ok", "warning", "failure", "unknown"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Args:
        status: "ok", "warning", "failure", or "unknown" when the server does not tell.
        found: what was found.
        fix: what to do; "" when nothing needs to be done.
    """

    name: str
    status: str
    found: str
    fix: str = ""


def permitted(
    address: Address, name: str, look: Callable[[], Check | Iterable[Check]]
) -> list[Check]:
    """Return what a look finds; "unknown" when this user may not look there."""
    try:
        with answered(address):
            found = look()
            return [found] if isinstance(found, Check) else list(found)
    except RedisPermissionError as error:
        return [Check(name, UNKNOWN, f"this user may not look ({error.__cause__ or error})")]


def some(names: Iterable[str], most: int = 3) -> str:
    """Return the first of some names, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more
