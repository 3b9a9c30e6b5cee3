"""The table of settings: the one list of what can be set."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

DEFAULT_REDIS_URL = "redis://127.0.0.1:6379/0"
SHORTEST_SECRET_BYTES = 16


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
        "How many of a dead worker's tasks one look brings back, in several short scripts.",
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
        "dlq_max_age_s",
        "RELIER_DLQ_MAX_AGE",
        None,
        "seconds, 1 to 3153600000 (100 years)",
        "Dead letters that are older are removed, for good; unset: none is. Alike in every worker.",
    ),
    Setting(
        "dlq_max_count",
        "RELIER_DLQ_MAX_COUNT",
        0,
        "a whole number of letters, 0 for no limit",
        "Each queue keeps so many dead letters, the newest, and the others are removed for good.",
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
        "slo",
        "RELIER_SLO",
        "99.9%",
        "shares of all tasks: 99.9% (that succeed), 95%@30s (that are done in time), with commas",
        "The service level objectives that `rl slo` reports on; 99.9%, 95%@30s asks for both.",
    ),
    Setting(
        "slo_tasks",
        "RELIER_SLO_TASKS",
        None,
        "the same by task name, with semicolons: billing.*=99.95%,95%@30s; reports.make=99%",
        "Objectives of tasks by name, * standing for anything; those of one entry count together.",
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
        "events_max_length",
        "RELIER_EVENTS_MAX_LENGTH",
        10_000,
        "a whole number of events, 100 to 100000",
        "Each queue keeps about so many events (some 100 bytes each) for timelines.",
    ),
    Setting(
        "events_max_age_s",
        "RELIER_EVENTS_MAX_AGE",
        604_800.0,
        "seconds, 60 to 315360000 (10 years)",
        "Older events are removed; what a task in trouble went through stays with the task.",
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
