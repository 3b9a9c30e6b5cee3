"""Settings are read once, from the strongest source that has each."""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from relier.config.checks import check_secrets, check_url, contradictions
from relier.config.dotenv import read_dotenv
from relier.config.masking import masked
from relier.config.objectives import overall, per_task
from relier.config.settings import Settings
from relier.config.table import SETTINGS, Setting
from relier.errors import ConfigurationError

_CHECKS: dict[str, Callable[[str], object]] = {
    "redis_url": check_url,
    "secret_key": check_secrets,
    "slo": overall,
    "slo_tasks": per_task,
}
_TYPES: dict[str, Any] = typing.get_type_hints(Settings, include_extras=True)


def load(
    env: Mapping[str, str],
    dotenv: Path | None = None,
    overrides: Mapping[str, object] | None = None,
) -> Settings:
    """Read and check every setting, once.

    Args:
        env: the environment, usually `os.environ`. An empty value counts as unset.
        dotenv: a `.env` file; one that is not there counts as empty.
        overrides: keyword arguments by field name; they win over `env`, which wins over `dotenv`.

    Returns:
        The frozen settings, defaults filled in.

    Raises:
        ConfigurationError: a value is not acceptable, a keyword unknown, or one setting needs
            another; the message names it and says what to set.
    """
    overrides = overrides or {}
    _refuse_unknown(overrides)
    from_file = {} if dotenv is None else read_dotenv(dotenv)
    values: dict[str, Any] = {
        row.name: _value(row, env, dotenv, from_file, overrides) for row in SETTINGS
    }
    for problem in contradictions(values):
        raise ConfigurationError(problem)
    return Settings(**values)


def _refuse_unknown(overrides: Mapping[str, object]) -> None:
    known = {row.name for row in SETTINGS}
    for name in overrides:
        if name not in known:
            raise ConfigurationError(
                f"unknown setting {name!r}: use one of {', '.join(sorted(known))}"
            )


def _value(
    row: Setting,
    env: Mapping[str, str],
    dotenv: Path | None,
    from_file: Mapping[str, str],
    overrides: Mapping[str, object],
) -> object:
    """Take one setting from the strongest source that has it."""
    if row.name in overrides:
        return checked(row, overrides[row.name], source=f"{row.name}=")
    if env.get(row.variable):
        return checked(row, env[row.variable], source=row.variable)
    if from_file.get(row.variable):
        return checked(row, from_file[row.variable], source=f"{row.variable} in {dotenv}")
    return row.default


def checked(row: Setting, raw: object, *, source: str) -> object:
    """Convert one raw value to its field's type, within its bounds.

    Raises:
        ConfigurationError: it is not acceptable; the message begins with ``source``.
    """
    value = row.clean(raw) if isinstance(raw, str) else raw
    try:
        value = msgspec.convert(value, _TYPES[row.name], strict=False)
        if row.name in _CHECKS and isinstance(value, str):
            _CHECKS[row.name](value)
    except (msgspec.ValidationError, ValueError) as problem:
        shown = masked(row.name, raw)
        raise ConfigurationError(
            f"{source} is {shown!r}, which does not work ({problem}): set it to {row.takes}"
        ) from None
    return value
