"""The manual: every command says what it does, how it is typed, and what it exits with."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from relier.cli.lazy import EXITS
from relier.cli.main import rl
from relier.cli.manual import Page, contexts, markdown, page

ROOT = Path(__file__).parents[2]
PAGES = [page(each) for each in contexts(rl)]
COMMANDS = {each.command_path: each for each in contexts(rl)}
LEAVES = [each for each in PAGES if not each.group]
PROSE = {"bench": "its arguments are read by a parser of its own"}


def test_the_reference_in_the_docs_is_the_manual_printed() -> None:
    written = (ROOT / "docs" / "cli-reference.md").read_text(encoding="utf-8")
    assert written == markdown(PAGES), "run `make cli-reference` (python scripts/cli_reference.py)"


@pytest.mark.parametrize("found", LEAVES, ids=lambda each: each.command)
def test_a_command_is_documented(found: Page) -> None:
    made = COMMANDS[found.command].command
    assert found.text, "no description"
    assert found.examples, "no line that begins with `Example: `"
    assert made.epilog == EXITS
    for option in made.params:
        if isinstance(option, click.Option):
            assert option.help, f"{option.opts} says nothing"
    if made.name not in PROSE:
        assert any("--json" in option.opts for option in made.params), "no --json"


@pytest.mark.parametrize(
    "example", [each for found in LEAVES for each in found.examples], ids=lambda each: each
)
def test_an_example_can_be_typed(example: str) -> None:
    name, *words = shlex.split(example)
    context = click.Context(rl, info_name=name)
    while isinstance(context.command, click.Group):
        said, command, words = context.command.resolve_command(context, words)
        assert command is not None
        if isinstance(command, click.Group):
            context = click.Context(command, info_name=said, parent=context)
        else:
            context = command.make_context(said, words, parent=context)


def test_whatever_a_message_tells_people_to_type_exists() -> None:
    groups = {each.command for each in PAGES if each.group}
    told: set[str] = set()
    for source in [*(ROOT / "src").rglob("*.py"), ROOT / "README.md"]:
        for line in re.findall(r"`rl ((?:[a-z][a-z-]* ?)+)", source.read_text(encoding="utf-8")):
            words = ["rl", *line.split()]
            depth = 3 if " ".join(words[:2]) in groups else 2
            told.add(" ".join(words[:depth]))
    assert told <= COMMANDS.keys()


def test_the_manual_off_a_terminal_is_plain_and_whole() -> None:
    done = CliRunner().invoke(rl, ["man"])
    assert done.exit_code == 0
    assert "\x1b" not in done.stdout
    for each in LEAVES:
        assert each.command.upper() in done.stdout


def test_one_command_has_a_page_of_its_own() -> None:
    done = CliRunner().invoke(rl, ["man", "tasks", "--json"])
    names = [each["command"] for each in json.loads(done.stdout)]
    assert {"rl tasks", "rl tasks list", "rl tasks inspect"} <= set(names)
    assert all(name.startswith("rl tasks") for name in names)
    assert CliRunner().invoke(rl, ["man", "tusks"]).exit_code == 4


def complete(line: str, **env: str) -> list[str]:
    """Ask as bash does, with the cursor behind the line."""
    words = line.split(" ")
    asked = subprocess.run(
        [sys.executable, "-c", "from relier.cli.main import rl; rl(prog_name='rl')"],
        env={
            **os.environ,
            **env,
            "_RL_COMPLETE": "bash_complete",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(words) - 1),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert asked.stderr == ""
    return [each.partition(",")[2] for each in asked.stdout.split()]


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("rl dl", ["dlq"]),
        ("rl tasks insp", ["inspect"]),
        ("rl tasks list --st", ["--state"]),
        ("rl tasks list --state run", ["running"]),
        ("rl config set HEARTBEAT", ["HEARTBEAT_TTL"]),
        ("rl config set RELIER_LOG", ["RELIER_LOG_LEVEL"]),
    ],
)
def test_commands_options_and_settings_are_completed(line: str, offered: list[str]) -> None:
    assert complete(line) == offered


@pytest.mark.parametrize("line", ["rl queue pause in", "rl worker drain w"])
def test_an_absent_redis_offers_nothing_and_says_nothing(line: str) -> None:
    assert complete(line, RELIER_REDIS_URL="redis://127.0.0.1:1/0") == []
    assert complete(line, RELIER_REDIS_URL="nonsense") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_its_script(shell: str) -> None:
    done = CliRunner().invoke(rl, ["completion", shell])
    assert done.exit_code == 0
    assert f"_RL_COMPLETE={shell}_complete" in done.stdout
    assert CliRunner().invoke(rl, ["completion", "tcsh"]).exit_code == 2
