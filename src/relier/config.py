"""Settings: read once from keyword arguments, the environment and a `.env` file, then frozen.

The table `SETTINGS` is the one list of what can be set; `.env.example` is printed from it.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import SplitResult, urlsplit

import msgspec
from msgspec import Meta

from relier.errors import ConfigurationError

ENV_PREFIX = "RELIER_"
DEFAULT_REDIS_URL = "redis://127.0.0.1:6379/0"
REDIS_SCHEMES = ("redis", "rediss", "unix", "redis+socket")
SECRETS = frozenset({"redis_password", "secret_key"})
SHORTEST_SECRET_BYTES = 16

Environment = Literal["production", "development"]
AdmissionMode = Literal["window", "smooth"]
CheckpointBackend = Literal["inline", "filesystem"]
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]
Name = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[^\s{}]+$")]


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that can be set; made by `load`, described in `SETTINGS`."""

    redis_url: str | None
    redis_password: str | None
    redis_max_connections: Annotated[int, Meta(ge=1, le=100_000)]
    redis_socket_timeout_s: Annotated[float, Meta(ge=0.1, le=300)]
    heartbeat_ttl_s: Annotated[float, Meta(ge=0.5, le=3600)]
    max_resurrections: Annotated[int, Meta(ge=0, le=1000)]
    max_interruptions: Annotated[int, Meta(ge=0, le=1000)]
    resurrection_check_interval_s: Annotated[float, Meta(ge=0.05, le=60)]
    resurrection_batch_size: Annotated[int, Meta(ge=1, le=1000)]
    resurrection_max_queue_depth: Annotated[int, Meta(ge=0)]
    idempotency_default_ttl_s: Annotated[float, Meta(ge=1, le=315_360_000)]
    recovery_queue: Annotated[str, Meta(min_length=1)] | None
    soft_timeout_s: Annotated[float, Meta(gt=0)] | None
    hard_timeout_s: Annotated[float, Meta(gt=0)] | None
    admission_limit: Annotated[int, Meta(ge=0, le=1_000_000_000)]
    admission_window_s: Annotated[float, Meta(ge=0.1, le=86_400)]
    admission_mode: AdmissionMode
    admission_burst: Annotated[int, Meta(ge=0, le=1_000_000_000)]
    admission_tenant_limit: Annotated[int, Meta(ge=0, le=1_000_000_000)]
    admission_max_queue_depth: Annotated[int, Meta(ge=0)]
    checkpoint_max_inline_bytes: Annotated[int, Meta(ge=0, le=16_777_216)]
    checkpoint_backend: CheckpointBackend
    checkpoint_dir: Annotated[str, Meta(min_length=1)] | None
    secret_key: str | None
    require_signature: bool
    graceful_shutdown_timeout_s: Annotated[float, Meta(ge=0, le=86_400)]
    termination_grace_period_s: Annotated[float, Meta(ge=0, le=86_400)] | None
    env: Environment
    log_level: LogLevel
    cluster_name: Name

    @property
    def secrets(self) -> tuple[str, ...]:
        """Return the keys of `secret_key`, the one that signs first."""
        return _secrets(self.secret_key or "")

    def __repr__(self) -> str:
        """Show every setting, passwords masked."""
        shown = (
            f"{name}={_masked(name, getattr(self, name))!r}" for name in self.__struct_fields__
        )
        return f"Settings({', '.join(shown)})"


class Setting(msgspec.Struct, frozen=True):
    """One row of the table: where a setting is read, what it is unset, and why it exists.

    Args:
        name: the field of `Settings` and the keyword of `Relier(app, ...)`.
        variable: the environment variable.
        default: the value when nobody sets it.
        takes: what it accepts, with the unit, in words that complete "set it to ...".
        why: one line for `.env.example`.
        clean: normalises text before it is validated.
    """

    name: str
    variable: str
    default: object
    takes: str
    why: str
    clean: Callable[[str], str] = str.strip


def _lower(text: str) -> str:
    return text.strip().lower()


def _upper(text: str) -> str:
    return text.strip().upper()


SETTINGS: tuple[Setting, ...] = (
    Setting(
        "redis_url",
        "RELIER_REDIS_URL",
        None,
        "an address such as redis://host:6379/0, rediss://host:6380/0 or unix:///run/redis.sock",
        f"The Redis or Valkey server; unset: the Celery app's broker, else {DEFAULT_REDIS_URL}.",
    ),
    Setting(
        "redis_password",
        "RELIER_REDIS_PASSWORD",
        None,
        "the server's password",
        "Kept out of the address, so that the address can be logged.",
        str,
    ),
    Setting(
        "redis_max_connections",
        "RELIER_REDIS_MAX_CONNECTIONS",
        50,
        "a whole number of connections, 1 to 100000",
        "The most connections one process opens for dispatch and inspection.",
    ),
    Setting(
        "redis_socket_timeout_s",
        "RELIER_REDIS_SOCKET_TIMEOUT",
        5.0,
        "seconds, 0.1 to 300",
        "A call to a Redis that stays silent longer than this is an error, never a hang.",
    ),
    Setting(
        "heartbeat_ttl_s",
        "RELIER_HEARTBEAT_TTL",
        10.0,
        "seconds, 0.5 to 3600",
        "A worker silent for this long is dead, when the server cannot see its socket closed.",
    ),
    Setting(
        "max_resurrections",
        "RELIER_MAX_RESURRECTIONS",
        5,
        "a whole number of times, 0 to 1000",
        "A task that takes its own process down more often than this is dead-lettered.",
    ),
    Setting(
        "max_interruptions",
        "RELIER_MAX_INTERRUPTIONS",
        15,
        "a whole number of times, 0 to 1000",
        "The same for deaths of a whole worker with neighbours, for which no task is to blame.",
    ),
    Setting(
        "resurrection_check_interval_s",
        "RELIER_RESURRECTION_CHECK_INTERVAL",
        0.25,
        "seconds, 0.05 to 60",
        "How often the dead are looked for.",
    ),
    Setting(
        "resurrection_batch_size",
        "RELIER_RESURRECTION_BATCH_SIZE",
        1000,
        "a whole number of tasks, 1 to 1000",
        "How many tasks one script brings back; smaller blocks Redis for less long.",
    ),
    Setting(
        "resurrection_max_queue_depth",
        "RELIER_RESURRECTION_MAX_QUEUE_DEPTH",
        0,
        "a whole number of messages, 0 for no limit",
        "Resurrections wait while their queue is longer than this.",
    ),
    Setting(
        "idempotency_default_ttl_s",
        "RELIER_IDEMPOTENCY_DEFAULT_TTL",
        3600.0,
        "seconds, 1 to 315360000 (10 years)",
        "How long the result of an idempotent task answers for later calls, unless the task says.",
    ),
    Setting(
        "recovery_queue",
        "RELIER_RECOVERY_QUEUE",
        None,
        "a queue's name",
        "Resurrected tasks go to this queue; unset: back to their own.",
    ),
    Setting(
        "soft_timeout_s",
        "RELIER_SOFT_TIMEOUT",
        None,
        "seconds, above 0",
        "A task without a soft_timeout of its own is reported when it runs longer than this.",
    ),
    Setting(
        "hard_timeout_s",
        "RELIER_HARD_TIMEOUT",
        None,
        "seconds, above 0 and above RELIER_SOFT_TIMEOUT",
        "A task without a hard_timeout of its own is stopped when it runs longer than this.",
    ),
    Setting(
        "admission_limit",
        "RELIER_ADMISSION_LIMIT",
        0,
        "a whole number of dispatches per window, 0 for no limit",
        "Dispatches of the whole cluster beyond this are refused, with the time to come back.",
    ),
    Setting(
        "admission_window_s",
        "RELIER_ADMISSION_WINDOW",
        60.0,
        "seconds, 0.1 to 86400",
        "The window of every limit of admission.",
    ),
    Setting(
        "admission_mode",
        "RELIER_ADMISSION_MODE",
        "window",
        "window (at most the limit in any window) or smooth (evenly, after a burst)",
        "How limits of admission count; smooth keeps a used-up limit from opening all at once.",
        _lower,
    ),
    Setting(
        "admission_burst",
        "RELIER_ADMISSION_BURST",
        0,
        "a whole number of dispatches, 0 for a tenth of the limit",
        "How many the smooth mode admits at once, the largest chunk of push_many included.",
    ),
    Setting(
        "admission_tenant_limit",
        "RELIER_ADMISSION_TENANT_LIMIT",
        0,
        "a whole number of dispatches per window, 0 for no limit",
        "The limit of one tenant, for tasks with an admission_key and no admission_limit.",
    ),
    Setting(
        "admission_max_queue_depth",
        "RELIER_ADMISSION_MAX_QUEUE_DEPTH",
        0,
        "a whole number of messages, 0 for no limit",
        "Dispatches to a queue in which this many wait are refused.",
    ),
    Setting(
        "checkpoint_max_inline_bytes",
        "RELIER_CHECKPOINT_MAX_INLINE_BYTES",
        65_536,
        "a whole number of bytes, 0 to 16777216",
        "Checkpoints up to this size are kept in Redis, with the record of their task.",
    ),
    Setting(
        "checkpoint_backend",
        "RELIER_CHECKPOINT_BACKEND",
        "inline",
        "inline or filesystem",
        "Where larger ones go: nowhere (inline: they are refused), or into files.",
        _lower,
    ),
    Setting(
        "checkpoint_dir",
        "RELIER_CHECKPOINT_DIR",
        None,
        "a folder that every worker of the fleet shares",
        "Where the backend filesystem keeps them; each Redis gets a folder of its own in it.",
    ),
    Setting(
        "secret_key",
        "RELIER_SECRET_KEY",
        None,
        f"keys of {SHORTEST_SECRET_BYTES} bytes or more, with commas between them",
        "Signs every task message: the first key signs, all verify. Unset: nothing is signed.",
        str,
    ),
    Setting(
        "require_signature",
        "RELIER_REQUIRE_SIGNATURE",
        False,
        "true or false",
        "Refuse task messages that nobody signed, such as those of stock producers.",
        _lower,
    ),
    Setting(
        "graceful_shutdown_timeout_s",
        "RELIER_GRACEFUL_SHUTDOWN_TIMEOUT",
        30.0,
        "seconds, 0 to 86400",
        "A worker that is asked to stop ends within this; what still runs then is handed over.",
    ),
    Setting(
        "termination_grace_period_s",
        "RELIER_TERMINATION_GRACE_PERIOD",
        None,
        "seconds, 0 to 86400",
        "After how long the platform kills a worker that it asked to stop (Kubernetes: the pod's "
        "terminationGracePeriodSeconds); unset: not known.",
    ),
    Setting(
        "env",
        "RELIER_ENV",
        "production",
        "production or development",
        "In development an unsafe Redis (AOF off, eviction on) is a warning, not a refusal.",
        _lower,
    ),
    Setting(
        "log_level",
        "RELIER_LOG_LEVEL",
        "INFO",
        "DEBUG, INFO, WARNING, ERROR or CRITICAL",
        "How much relier's own loggers say.",
        _upper,
    ),
    Setting(
        "cluster_name",
        "RELIER_CLUSTER_NAME",
        "relier",
        "a name, without spaces or braces",
        "Names this fleet in logs and listings.",
    ),
)

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
    from_file = {} if dotenv is None else _read_dotenv(dotenv)
    values: dict[str, Any] = {
        row.name: _value(row, env, dotenv, from_file, overrides) for row in SETTINGS
    }
    _check_timeouts(values["soft_timeout_s"], values["hard_timeout_s"])
    settings = Settings(**values)
    _check_together(settings)
    return settings


def example_dotenv() -> str:
    """Print the table as a `.env` file in which every line is commented out."""
    lines = [
        "# Settings of relier, with their defaults. Copy to .env and uncomment what you change."
    ]
    for row in SETTINGS:
        lines += ["", f"# {row.why}", f"# Takes {row.takes}."]
        lines += [f"#{row.variable}={_written(row.default)}"]
    return "\n".join(lines) + "\n"


def _written(default: object) -> str:
    if default is None:
        return ""
    if isinstance(default, bool):
        return str(default).lower()
    return f"{default:g}" if isinstance(default, int | float) else str(default)


def _refuse_unknown(overrides: Mapping[str, object]) -> None:
    known = {row.name for row in SETTINGS}
    for name in overrides:
        if name not in known:
            raise ConfigurationError(
                f"unknown setting {name!r}: use one of {', '.join(sorted(known))}"
            )


def _check_together(settings: Settings) -> None:
    if settings.checkpoint_backend == "filesystem" and settings.checkpoint_dir is None:
        raise ConfigurationError(
            "RELIER_CHECKPOINT_BACKEND is 'filesystem', which needs a folder: set "
            "RELIER_CHECKPOINT_DIR to one that every worker of the fleet shares"
        )
    if settings.require_signature and not settings.secret_key:
        raise ConfigurationError(
            "RELIER_REQUIRE_SIGNATURE is on, but there is no key to verify with: set "
            "RELIER_SECRET_KEY here, in every producer and in every worker"
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
        return _checked(row, overrides[row.name], source=f"{row.name}=")
    if env.get(row.variable):
        return _checked(row, env[row.variable], source=row.variable)
    if from_file.get(row.variable):
        return _checked(row, from_file[row.variable], source=f"{row.variable} in {dotenv}")
    return row.default


def _checked(row: Setting, raw: object, *, source: str) -> object:
    """Convert one raw value to its field's type, within its bounds."""
    value = row.clean(raw) if isinstance(raw, str) else raw
    try:
        value = msgspec.convert(value, _TYPES[row.name], strict=False)
        if row.name == "redis_url" and isinstance(value, str):
            _check_url(value)
        if row.name == "secret_key" and isinstance(value, str):
            _check_secrets(value)
    except (msgspec.ValidationError, ValueError) as problem:
        shown = _masked(row.name, raw)
        raise ConfigurationError(
            f"{source} is {shown!r}, which does not work ({problem}): set it to {row.takes}"
        ) from None
    return value


def _check_timeouts(soft_s: float | None, hard_s: float | None) -> None:
    if soft_s is not None and hard_s is not None and soft_s >= hard_s:
        raise ConfigurationError(
            f"RELIER_SOFT_TIMEOUT ({soft_s:g}) is not below RELIER_HARD_TIMEOUT ({hard_s:g}): no "
            "task would live to see it; lower the first or raise the second"
        )


def _secrets(text: str) -> tuple[str, ...]:
    return tuple(each.strip() for each in text.split(",") if each.strip())


def _check_secrets(text: str) -> None:
    keys = _secrets(text)
    if not keys:
        raise ValueError("there is no key in it")
    for number, key in enumerate(keys, start=1):
        size = len(key.encode())
        if size < SHORTEST_SECRET_BYTES:
            raise ValueError(f"key {number} of {len(keys)} has only {size} bytes")


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in REDIS_SCHEMES:
        raise ValueError(f"the scheme is none of {', '.join(REDIS_SCHEMES)}")
    if parts.scheme in ("redis", "rediss"):
        if not parts.hostname:
            raise ValueError("no host")
        _check_port(parts)
    elif not parts.path:
        raise ValueError("no path to the socket")


def _check_port(parts: SplitResult) -> None:
    try:
        port = parts.port
    except ValueError:
        # Not passed on: a password with a stray slash would be quoted here as the port.
        raise ValueError("the port is no number up to 65535") from None
    if port == 0:
        raise ValueError("no server listens on port 0")


def _masked(name: str, value: object) -> object:
    """Hide what must not reach a log or a terminal."""
    if name in SECRETS and value is not None:
        return "***"
    if name == "redis_url" and isinstance(value, str):
        return _without_password(value)
    return value


def _without_password(url: str) -> str:
    # By pattern: a password with a stray slash or hash makes an address that does not parse.
    url = re.sub(r"(://[^:@/]*):.*@", r"\1:***@", url)
    return re.sub(r"(password=)[^&]*", r"\1***", url)


def _read_dotenv(path: Path) -> dict[str, str]:
    """Read `NAME=value` lines that name our variables; the rest belongs to other tools."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as problem:
        raise ConfigurationError(
            f"{path} cannot be read ({problem}): make it a readable UTF-8 file, or remove it"
        ) from None
    values = {}
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip().removeprefix("export ").lstrip()
        if not stripped.startswith(ENV_PREFIX):
            continue
        name, equals, raw = stripped.partition("=")
        if not equals:
            raise ConfigurationError(f"{path}, line {number}: write it as {name.strip()}=value")
        values[name.strip()] = _unquoted(raw.strip())
    return values


def _unquoted(raw: str) -> str:
    """Take the quotes off, or a trailing comment (` # ...`) where there are none."""
    if raw[:1] in ("'", '"'):
        value, closing, _ = raw[1:].partition(raw[0])
        return value if closing else raw
    return "" if raw.startswith("#") else raw.partition(" #")[0].rstrip()
