"""`rl config`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from relier.cli import common, words
from relier.cli.common import Asked
from relier.config.loading import checked
from relier.config.masking import masked
from relier.config.survey import DEFAULT, ENVIRONMENT, Survey, nearest, row_named, survey
from relier.config.table import Setting
from relier.config.writing import write_setting
from relier.errors import ConfigurationError

_DOTENV = Path(".env")


@click.group()
def config() -> None:
    """Settings: what each is and who says so, what is wrong with them, set one in .env."""


@config.command()
@common.offline
def show(asked: Asked) -> None:
    """Show every setting as this folder and this environment have it, and where it comes from.

    An app may say otherwise, as keyword arguments of Relier(app, ...). Secrets are not shown.

    \b
    Example: rl config show
    """
    found = survey(os.environ, _DOTENV)
    if asked.answer([_as_json(found, each.row.variable) for each in found.told]):
        return
    rows = [
        (each.row.variable, "-" if each.shown is None else each.shown, each.source)
        for each in found.told
    ]
    common.console().print(words.table(("setting", "value", "from"), rows))
    if found.mistakes:
        click.echo(f"{words.count(len(found.mistakes), 'mistake')}: `rl config validate`", err=True)


@config.command()
@common.offline
def validate(asked: Asked) -> int:
    """Check every setting in the environment and in .env, and say all that is wrong.

    Exits with 1 if something is.

    \b
    Example: rl config validate
    """
    found = survey(os.environ, _DOTENV)
    mistakes = [each._asdict() for each in found.mistakes]
    if not asked.answer({"valid": not found.mistakes, "mistakes": mistakes}):
        for mistake in found.mistakes:
            where = f"{mistake.source}: " if mistake.source else ""
            click.echo(words.safe(f"{where}{mistake.problem}"))
        given = sum(each.source != DEFAULT for each in found.told)
        wrong = words.count(len(found.mistakes), "mistake") if found.mistakes else "no mistakes"
        click.echo(f"{words.count(given, 'setting')} given, {wrong}.")
    return common.FAILED if found.mistakes else 0


@config.command("set")
@click.argument("name", metavar="SETTING")
@click.argument("value", metavar="VALUE")
@common.offline
def set_(asked: Asked, name: str, value: str) -> None:
    """Set one setting in the .env of this folder; comments and everything else stay.

    SETTING is the variable, with or without RELIER_. VALUE may be "-": it is then read from
    standard input, which keeps a secret out of the shell's history; an empty one unsets it.
    Running processes keep what they have read.

    \b
    Example: rl config set HEARTBEAT_TTL 20
    """
    row = row_named(name)
    if row is None:
        near = nearest(name)
        hint = f"did you mean {near}?" if near else "`rl config show` lists those there are"
        raise common.NotFoundError(f"there is no setting {name}: {hint}")
    if value == "-":
        value = sys.stdin.readline().rstrip("\r\n")
    before = survey(os.environ, _DOTENV)
    _check(row, value, before)
    write_setting(_DOTENV, row.variable, value)
    found = survey(os.environ, _DOTENV)
    facts = _as_json(found, row.variable)
    if asked.answer({**facts, "file": str(_DOTENV)}):
        return
    shown = masked(row.name, value)
    click.echo(words.safe(f"{row.variable}={shown} in {_DOTENV}"))
    if facts["from"] == ENVIRONMENT:
        click.echo(f"The environment sets {row.variable}, too, and is stronger.", err=True)


def _check(row: Setting, value: str, before: Survey) -> None:
    """Refuse a value that does not work, by itself or with the others as they are.

    Raises:
        ConfigurationError: it does not.
    """
    from relier.config.checks import contradictions

    values = {each.row.name: each.value for each in before.told}
    old = set(contradictions(values))
    values[row.name] = checked(row, value, source=row.variable) if value else row.default
    for problem in contradictions(values):
        if problem not in old:
            raise ConfigurationError(problem)


def _as_json(found: Survey, variable: str) -> dict[str, object]:
    told = next(each for each in found.told if each.row.variable == variable)
    return {
        "setting": told.row.variable,
        "value": told.shown,
        "from": told.source,
        "default": told.row.default,
        "problem": told.problem,
    }
