"""How long ago: 90s, 15m, 2h, 1h30m, 7d, as an option takes it."""

from __future__ import annotations

import re

import click

_SECOND_MS, _MINUTE_MS, _HOUR_MS = 1000, 60_000, 3_600_000
_UNITS_MS = {
    "s": _SECOND_MS,
    "m": _MINUTE_MS,
    "min": _MINUTE_MS,
    "h": _HOUR_MS,
    "d": 24 * _HOUR_MS,
    "w": 7 * 24 * _HOUR_MS,
}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(s|min|m|h|d|w)", re.ASCII)
_LONGEST_MS = 10**13


def age_ms(
    _ctx: click.Context | None, param: click.Parameter | None, text: str | None
) -> int | None:
    """Read an option's span of time; a callback for click.

    Raises:
        click.BadParameter: it is none.
    """
    if text is None:
        return None
    lower = text.strip().lower()
    parts = _PART.findall(lower)
    if not parts or _PART.sub("", lower).strip():
        raise click.BadParameter(
            f"{text!r} is no age: write it as 90s, 15m, 2h, 1h30m, 7d or 2w", param=param
        )
    return int(min(sum(float(count) * _UNITS_MS[unit] for count, unit in parts), _LONGEST_MS))
