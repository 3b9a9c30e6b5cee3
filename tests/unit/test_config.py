from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from relier.config import SETTINGS, Settings, example_dotenv, load
from relier.errors import ConfigurationError

ROOT = Path(__file__).parents[2]


def test_every_setting_has_one_row_and_a_default_that_its_own_rule_accepts() -> None:
    assert tuple(row.name for row in SETTINGS) == Settings.__struct_fields__
    defaults = {row.name: row.default for row in SETTINGS if row.default is not None}
    assert load({}, overrides=defaults) == load({})


def test_the_example_file_is_the_table_printed() -> None:
    written = (ROOT / ".env.example").read_text(encoding="utf-8")
    assert written == example_dotenv(), "run `make env-example` and commit the result"


def test_the_example_file_says_the_defaults(tmp_path: Path) -> None:
    uncommented = tmp_path / ".env"
    uncommented.write_text(example_dotenv().replace("#RELIER_", "RELIER_"), encoding="utf-8")
    assert load({}, uncommented) == load({})


def test_keyword_beats_environment_beats_file_beats_default(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text("RELIER_HEARTBEAT_TTL=7\nRELIER_MAX_RESURRECTIONS=7\n", encoding="utf-8")
    env = {"RELIER_HEARTBEAT_TTL": "8", "RELIER_MAX_INTERRUPTIONS": "8"}
    settings = load(env, dotenv, {"max_interruptions": 9})
    assert settings.max_resurrections == 7
    assert settings.heartbeat_ttl_s == 8.0
    assert settings.max_interruptions == 9
    assert settings.resurrection_batch_size == 1000


def test_text_is_read_as_its_field_asks() -> None:
    env = {
        "RELIER_REDIS_SOCKET_TIMEOUT": " 2.5 ",
        "RELIER_ENV": "Development",
        "RELIER_LOG_LEVEL": "debug",
        "RELIER_RECOVERY_QUEUE": "re-queue",
        "RELIER_REDIS_PASSWORD": " null",
    }
    settings = load(env)
    assert settings.redis_socket_timeout_s == 2.5
    assert (settings.env, settings.log_level) == ("development", "DEBUG")
    assert (settings.recovery_queue, settings.redis_password) == ("re-queue", " null")


def test_an_empty_variable_and_a_foreign_one_count_as_unset(tmp_path: Path) -> None:
    env = {"RELIER_HEARTBEAT_TTL": "", "RELIER_SOMEBODY_ELSE": "x"}
    assert load(env, tmp_path / "absent.env") == load({})


@pytest.mark.parametrize(
    ("variable", "value", "fix"),
    [
        ("RELIER_REDIS_MAX_CONNECTIONS", "many", "whole number of connections"),
        ("RELIER_REDIS_MAX_CONNECTIONS", "0", "1 to 100000"),
        ("RELIER_REDIS_SOCKET_TIMEOUT", "inf", "seconds, 0.1 to 300"),
        ("RELIER_HEARTBEAT_TTL", "nan", "seconds, 0.5 to 3600"),
        ("RELIER_MAX_RESURRECTIONS", "-1", "0 to 1000"),
        ("RELIER_RESURRECTION_BATCH_SIZE", "1001", "1 to 1000"),
        ("RELIER_CHECKPOINT_MAX_INLINE_BYTES", "16777217", "0 to 16777216"),
        ("RELIER_CHECKPOINT_BACKEND", "s3", "inline or filesystem"),
        ("RELIER_ENV", "staging", "production or development"),
        ("RELIER_LOG_LEVEL", "loud", "DEBUG, INFO"),
        ("RELIER_CLUSTER_NAME", "two words", "without spaces"),
        ("RELIER_REDIS_URL", "http://host", "redis://host:6379/0"),
        ("RELIER_REDIS_URL", "redis://host:port", "redis://host:6379/0"),
        ("RELIER_REDIS_URL", "redis://", "redis://host:6379/0"),
        ("RELIER_REDIS_URL", "unix://", "unix:///run/redis.sock"),
    ],
)
def test_a_bad_value_is_named_with_its_fix(variable: str, value: str, fix: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load({variable: value})
    assert variable in str(caught.value)
    assert value in str(caught.value)
    assert fix in str(caught.value)


def test_a_bad_keyword_and_a_bad_line_say_where_they_stand(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="heartbeat_ttl_s="):
        load({}, overrides={"heartbeat_ttl_s": 0})
    with pytest.raises(ConfigurationError, match="unknown setting 'heartbeat'"):
        load({}, overrides={"heartbeat": 3})
    dotenv = tmp_path / ".env"
    dotenv.write_text("RELIER_ENV=x\n", encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"RELIER_ENV in .*\.env"):
        load({}, dotenv)
    dotenv.write_text("A=1\nRELIER_ENV\n", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="line 2: write it as RELIER_ENV=value"):
        load({}, dotenv)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load({}, tmp_path)


def test_a_checkpoint_backend_of_files_needs_a_folder(tmp_path: Path) -> None:
    env = {"RELIER_CHECKPOINT_BACKEND": "filesystem"}
    with pytest.raises(ConfigurationError, match="set RELIER_CHECKPOINT_DIR"):
        load(env)
    assert load({**env, "RELIER_CHECKPOINT_DIR": str(tmp_path)}).checkpoint_dir == str(tmp_path)


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("RELIER_RECOVERY_QUEUE=plain", "plain"),
        ("export RELIER_RECOVERY_QUEUE = spaced  # why", "spaced"),
        ("RELIER_RECOVERY_QUEUE='# quoted'  # why", "# quoted"),
        ('RELIER_RECOVERY_QUEUE="double"', "double"),
        ("RELIER_RECOVERY_QUEUE=a#b", "a#b"),
        ("RELIER_RECOVERY_QUEUE=", None),
        ("RELIER_RECOVERY_QUEUE=  # nothing", None),
        ("# RELIER_RECOVERY_QUEUE=x", None),
        ("not ours at all", None),
    ],
)
def test_a_line_of_a_dotenv_file(tmp_path: Path, line: str, value: str | None) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text(line, encoding="utf-8")
    assert load({}, dotenv).recovery_queue == value


def test_settings_are_frozen() -> None:
    with pytest.raises(AttributeError):
        load({}).max_resurrections = 1
    assert msgspec.structs.replace(load({}), max_resurrections=1).max_resurrections == 1


@pytest.mark.parametrize(
    "url",
    [
        "redis://user:hunter2@host:6379/0",
        "redis://:hunt/er2@host:6379/0",
        "redis://host/0?password=hunter2&db=1",
        "rediss://:a@hunter2@host:6379/0",
    ],
)
def test_no_password_reaches_a_log(url: str) -> None:
    shown = ""
    try:
        shown = repr(load({"RELIER_REDIS_URL": url, "RELIER_REDIS_PASSWORD": "hunter2"}))
    except ConfigurationError as problem:
        shown = str(problem)
    assert "host" in shown
    for part in ("hunter2", "hunt", "er2@"):
        assert part not in shown


@pytest.mark.parametrize("text", ["a key of 16 byte", "key number one of 2 , key number two of 2,"])
def test_keys_are_divided_by_commas(text: str) -> None:
    settings = load({"RELIER_SECRET_KEY": text})
    assert settings.secrets == tuple(each.strip() for each in text.split(",") if each.strip())
    assert not settings.require_signature


@pytest.mark.parametrize(
    "text", ["shortest-secret", "a key that is long enough,shortest-secret", ","]
)
def test_a_key_that_is_too_short_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(
        ConfigurationError, match=r"RELIER_SECRET_KEY is '\*\*\*'.*16 bytes"
    ) as told:
        load({"RELIER_SECRET_KEY": text})
    assert "shortest-secret" not in str(told.value)


def test_secrets_are_masked() -> None:
    shown = repr(load({"RELIER_SECRET_KEY": "a key that nobody may see"}))
    assert "nobody may see" not in shown
    assert "secret_key='***'" in shown


def test_signatures_are_required_only_with_a_key() -> None:
    with pytest.raises(ConfigurationError, match="set RELIER_SECRET_KEY"):
        load({"RELIER_REQUIRE_SIGNATURE": "true"})
    env = {"RELIER_REQUIRE_SIGNATURE": "True", "RELIER_SECRET_KEY": "a key of 16 byte"}
    assert load(env).require_signature
