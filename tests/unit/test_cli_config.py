"""`rl config`: what is set, what is wrong with it, and setting it without touching the rest."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from relier.cli.main import rl
from relier.config import SETTINGS, load
from relier.config.dotenv import parsed

SECRET = "0123456789abcdef"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, and an environment in which nothing is set."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("RELIER_")]:
        monkeypatch.delenv(name)
    return tmp_path


def config(*arguments: str, env: dict[str, str] | None = None, **options: Any) -> Result:
    return CliRunner().invoke(rl, ["config", *arguments], env=env, **options)


def shown(env: dict[str, str] | None = None) -> dict[str, dict[str, Any]]:
    done = config("show", "--json", env=env)
    assert done.exit_code == 0, done.output
    return {each["setting"]: each for each in json.loads(done.stdout)}


def test_show_says_what_each_setting_is_and_where_it_comes_from(here: Path) -> None:
    (here / ".env").write_text("RELIER_HEARTBEAT_TTL=7\nRELIER_LOG_LEVEL=debug\n")
    found = shown({"RELIER_LOG_LEVEL": "error"})
    assert found.keys() == {row.variable for row in SETTINGS}
    assert (found["RELIER_HEARTBEAT_TTL"]["value"], found["RELIER_HEARTBEAT_TTL"]["from"]) == (
        7.0,
        ".env",
    )
    assert (found["RELIER_LOG_LEVEL"]["value"], found["RELIER_LOG_LEVEL"]["from"]) == (
        "ERROR",
        "environment",
    )
    assert found["RELIER_ENV"]["from"] == "default"


def test_show_hides_secrets(here: Path) -> None:
    env = {"RELIER_SECRET_KEY": SECRET, "RELIER_REDIS_URL": "redis://me:hidden@host/0"}
    (here / ".env").write_text("RELIER_REDIS_PASSWORD=hidden\n")
    for arguments in (["show"], ["show", "--json"]):
        done = config(*arguments, env=env)
        assert done.exit_code == 0
        assert SECRET not in done.output
        assert "hidden" not in done.output
        assert "redis://me:***@host/0" in done.output


def test_validate_is_content_with_what_works(here: Path) -> None:
    assert config("validate").stdout == "0 settings given, no mistakes.\n"
    done = config("validate", "--json", env={"RELIER_HEARTBEAT_TTL": "5"})
    assert (done.exit_code, json.loads(done.stdout)) == (0, {"valid": True, "mistakes": []})


def test_validate_says_every_mistake_at_once(here: Path) -> None:
    (here / ".env").write_text(
        "RELIER_HEARTBEAT_TLL=5\nRELIER_SOFT_TIMEOUT=9\nRELIER_HARD_TIMEOUT=8\nRELIER_LOG_LEVEL\n"
    )
    env = {
        "RELIER_MAX_RESURRECTIONS": "many",
        "RELIER_SECRET_KEY": "short",
        "RELIER_ZZZZZZZZ": "1",
        "RELIER_CHECKPOINT_BACKEND": "filesystem",
    }
    done = config("validate", "--json", env=env)
    assert done.exit_code == 1
    mistakes = json.loads(done.stdout)["mistakes"]
    by_variable = {each["variable"]: each["problem"] for each in mistakes if each["variable"]}
    assert by_variable.keys() == {
        "RELIER_HEARTBEAT_TLL",
        "RELIER_LOG_LEVEL",
        "RELIER_MAX_RESURRECTIONS",
        "RELIER_SECRET_KEY",
        "RELIER_ZZZZZZZZ",
    }
    assert "did you mean RELIER_HEARTBEAT_TTL?" in by_variable["RELIER_HEARTBEAT_TLL"]
    assert "line 4" in by_variable["RELIER_LOG_LEVEL"]
    together = " ".join(each["problem"] for each in mistakes if not each["variable"])
    assert "RELIER_SOFT_TIMEOUT (9)" in together
    assert "RELIER_CHECKPOINT_DIR" in together
    plain = config("validate", env=env)
    assert plain.exit_code == 1
    assert plain.stdout.splitlines()[-1].endswith("7 mistakes.")


@pytest.mark.parametrize("name", ["HEARTBEAT_TTL", "relier_heartbeat_ttl", "heartbeat_ttl_s"])
def test_set_takes_a_setting_by_any_of_its_names(here: Path, name: str) -> None:
    done = config("set", name, "20")
    assert (done.exit_code, done.stdout) == (0, "RELIER_HEARTBEAT_TTL=20 in .env\n")
    assert (here / ".env").read_text() == "RELIER_HEARTBEAT_TTL=20\n"
    assert stat.S_IMODE((here / ".env").stat().st_mode) == 0o600


def test_set_leaves_everything_else_as_it_is(here: Path) -> None:
    dotenv = here / ".env"
    dotenv.write_bytes(
        b"# ours\r\nDATABASE_URL='postgres://x'  # theirs\r\n"
        b"  export RELIER_HEARTBEAT_TTL = 5 # seconds, as told\r\n\r\n"
        b"#RELIER_LOG_LEVEL=INFO\r\nRELIER_ENV=\r\nLAST=1"
    )
    dotenv.chmod(0o640)
    for name, value in (("HEARTBEAT_TTL", "8"), ("LOG_LEVEL", "DEBUG"), ("ENV", "development")):
        assert config("set", name, value).exit_code == 0
    assert config("set", "CLUSTER_NAME", "shop").exit_code == 0
    assert dotenv.read_bytes() == (
        b"# ours\r\nDATABASE_URL='postgres://x'  # theirs\r\n"
        b"  export RELIER_HEARTBEAT_TTL = 8 # seconds, as told\r\n\r\n"
        b"#RELIER_LOG_LEVEL=INFO\r\nRELIER_LOG_LEVEL=DEBUG\r\nRELIER_ENV=development\r\nLAST=1\r\n"
        b"RELIER_CLUSTER_NAME=shop\r\n"
    )
    assert stat.S_IMODE(dotenv.stat().st_mode) == 0o640
    assert os.listdir(here) == [".env"]


def test_set_changes_the_line_that_counts(here: Path) -> None:
    (here / ".env").write_text("RELIER_ENV=production\nRELIER_ENV=production\n")
    config("set", "ENV", "development")
    assert (here / ".env").read_text() == "RELIER_ENV=production\nRELIER_ENV=development\n"
    assert load({}, here / ".env").env == "development"


@pytest.mark.parametrize(
    "value",
    [
        f"{SECRET} # not a comment",
        f"'{SECRET}'",
        f'"{SECRET}"',
        f"{SECRET}$HOME`x`\\",
        f"it's {SECRET}",
        f" {SECRET}\u00e9\u4e2d ",
        f"#{SECRET}",
        f"{SECRET},{SECRET}",
    ],
)
def test_a_value_is_read_back_as_it_was_given(here: Path, value: str) -> None:
    (here / ".env").write_text("RELIER_SECRET_KEY=before  # a comment\n")
    done = config("set", "SECRET_KEY", value)
    assert done.exit_code == 0, done.output
    assert SECRET not in done.output
    text = (here / ".env").read_text()
    assert [line.value for line in parsed(text)] == [value]
    assert text.endswith("  # a comment\n")


@pytest.mark.parametrize("value", [f"{SECRET}\nRELIER_ENV=x", f"{SECRET}\x1b[2J", f"'\"{SECRET}"])
def test_a_value_that_no_line_holds_is_refused(here: Path, value: str) -> None:
    done = config("set", "SECRET_KEY", value)
    assert (done.exit_code, SECRET in done.output) == (2, False)
    assert not (here / ".env").exists()


def test_a_secret_may_come_by_standard_input(here: Path) -> None:
    assert config("set", "SECRET_KEY", "-", input=f"{SECRET}\n").exit_code == 0
    assert load({}, here / ".env").secret_key == SECRET


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["HEARTBEAT_TTL", "soon"], 2, "seconds, 0.5 to 3600"),
        (["HEARTBEET_TTL", "1"], 4, "did you mean RELIER_HEARTBEAT_TTL?"),
        (["QQQQQQQQQQ", "1"], 4, "rl config show"),
        (["REQUIRE_SIGNATURE", "true"], 2, "RELIER_SECRET_KEY"),
    ],
)
def test_what_does_not_work_is_not_written(
    here: Path, arguments: list[str], status: int, said: str
) -> None:
    done = config("set", *arguments)
    assert (done.exit_code, done.stdout) == (status, "")
    assert said in done.stderr
    assert not (here / ".env").exists()


def test_one_mistake_does_not_keep_another_from_being_mended(here: Path) -> None:
    (here / ".env").write_text("RELIER_SOFT_TIMEOUT=9\nRELIER_HARD_TIMEOUT=8\nRELIER_LOG_LEVEL=x\n")
    assert config("set", "LOG_LEVEL", "INFO").exit_code == 0
    assert config("set", "HARD_TIMEOUT", "").exit_code == 0
    assert config("validate").exit_code == 0


def test_the_stronger_environment_is_pointed_out(here: Path) -> None:
    done = config("set", "ENV", "development", env={"RELIER_ENV": "production"})
    assert done.exit_code == 0
    assert "stronger" in done.stderr


def test_a_link_stays_a_link(here: Path) -> None:
    (here / "real").write_text("A=1\n")
    (here / ".env").symlink_to("real")
    config("set", "ENV", "development")
    assert (here / ".env").is_symlink()
    assert (here / "real").read_text() == "A=1\nRELIER_ENV=development\n"


def test_two_who_write_at_once_both_have_their_say(here: Path) -> None:
    names = ["HEARTBEAT_TTL", "MAX_RESURRECTIONS", "MAX_INTERRUPTIONS", "REDIS_MAX_CONNECTIONS"]
    command = [sys.executable, "-m", "relier.cli", "config", "set"]
    writers = [subprocess.Popen([*command, name, "7"], stdout=subprocess.DEVNULL) for name in names]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0, 0]
    lines = (here / ".env").read_text().splitlines()
    assert sorted(lines) == sorted(f"RELIER_{name}=7" for name in names)


def test_a_file_that_cannot_be_read_is_one_line(here: Path) -> None:
    (here / ".env").write_bytes(b"RELIER_ENV=\xff\n")
    for arguments in (["show"], ["validate"], ["set", "ENV", "development"]):
        done = config(*arguments)
        assert done.exit_code == 2
        assert len(done.stderr.strip().splitlines()) == 1
    assert (here / ".env").read_bytes() == b"RELIER_ENV=\xff\n"
