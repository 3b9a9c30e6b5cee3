"""All settings at once: what each is, who says so, and everything that is wrong with them."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from relier.config import dotenv as files
from relier.config.checks import contradictions
from relier.config.loading import checked
from relier.config.masking import masked
from relier.config.table import SETTINGS, Setting
from relier.errors import ConfigurationError

DEFAULT, ENVIRONMENT = "default", "environment"


class Told(NamedTuple):
    """One setting.

    Args:
        row: its row of the table.
        value: what it is; the default where what somebody says does not work.
        source: who says so: "environment", the file's name, or "default".
        problem: why what somebody says does not work, and what to set; "" when it does.
    """

    row: Setting
    value: object
    source: str
    problem: str

    @property
    def shown(self) -> object:
        """Return the value without what must not reach a terminal."""
        return masked(self.row.name, self.value)


class Mistake(NamedTuple):
    """One thing that is wrong; ``variable`` is "" where two settings do not fit together."""

    variable: str
    source: str
    problem: str


class Survey(NamedTuple):
    """Every setting, and every mistake."""

    told: tuple[Told, ...]
    mistakes: tuple[Mistake, ...]


def survey(env: Mapping[str, str], dotenv: Path) -> Survey:
    """Read every setting, whatever is wrong with the others.

    Args:
        env: the environment.
        dotenv: a `.env` file; one that is not there counts as empty.

    Raises:
        ConfigurationError: the file cannot be read at all.
    """
    lines = files.lines_of(dotenv)
    from_file = {line.name: line.value for line in lines if line.value is not None}
    told = tuple(_told(row, env, dotenv, from_file) for row in SETTINGS)
    mistakes = [
        Mistake(line.name, str(dotenv), f"line {line.number}: write it as {line.name}=value")
        for line in lines
        if line.value is None
    ]
    for source, names in ((ENVIRONMENT, list(env)), (str(dotenv), [line.name for line in lines])):
        mistakes += _unknown(names, source)
    mistakes += [
        Mistake(each.row.variable, each.source, each.problem) for each in told if each.problem
    ]
    values = {each.row.name: each.value for each in told}
    mistakes += [Mistake("", "", problem) for problem in contradictions(values)]
    return Survey(told, tuple(mistakes))


def row_named(name: str) -> Setting | None:
    """Return a setting by its variable, that without RELIER_, or its keyword."""
    for row in SETTINGS:
        if name.upper() in (row.variable, row.variable.removeprefix(files.ENV_PREFIX)):
            return row
        if name.lower() == row.name:
            return row
    return None


def nearest(name: str) -> str:
    """Return the variable that looks most like a name, or ""."""
    # Without what all have in common, or every name would look like every other.
    known = {row.variable.removeprefix(files.ENV_PREFIX): row.variable for row in SETTINGS}
    short = name.upper().removeprefix(files.ENV_PREFIX)
    return "".join(known[each] for each in difflib.get_close_matches(short, known, n=1))


def _told(row: Setting, env: Mapping[str, str], dotenv: Path, from_file: Mapping[str, str]) -> Told:
    if env.get(row.variable):
        raw, source = env[row.variable], ENVIRONMENT
    elif from_file.get(row.variable):
        raw, source = from_file[row.variable], str(dotenv)
    else:
        return Told(row, row.default, DEFAULT, "")
    try:
        return Told(row, checked(row, raw, source=row.variable), source, "")
    except ConfigurationError as error:
        return Told(row, row.default, source, str(error))


def _unknown(names: list[str], source: str) -> Iterator[Mistake]:
    known = {row.variable for row in SETTINGS}
    for name in names:
        if name.startswith(files.ENV_PREFIX) and name not in known:
            near = nearest(name)
            hint = f"did you mean {near}?" if near else "`rl config show` lists those there are"
            yield Mistake(name, source, f"nothing reads {name}: {hint}")
