"""The frozen settings that everything else is handed."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from relier.config.masking import masked
from relier.config.objectives import Objective, overall, per_task

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
    dlq_max_age_s: Annotated[float, Meta(ge=1, le=3_153_600_000)] | None
    dlq_max_count: Annotated[int, Meta(ge=0)]
    secret_key: str | None
    require_signature: bool
    slo: str
    slo_tasks: str | None
    graceful_shutdown_timeout_s: Annotated[float, Meta(ge=0, le=86_400)]
    termination_grace_period_s: Annotated[float, Meta(ge=0, le=86_400)] | None
    events_max_length: Annotated[int, Meta(ge=100, le=100_000)]
    events_max_age_s: Annotated[float, Meta(ge=60, le=315_360_000)]
    env: Environment
    log_level: LogLevel
    cluster_name: Name

    @property
    def secrets(self) -> tuple[str, ...]:
        """Return the keys of `secret_key`, the one that signs first."""
        return keys_in(self.secret_key or "")

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """Return the objectives over all tasks, then those of tasks by name."""
        return (*overall(self.slo), *per_task(self.slo_tasks or ""))

    def __repr__(self) -> str:
        """Show every setting, passwords masked."""
        shown = (f"{name}={masked(name, getattr(self, name))!r}" for name in self.__struct_fields__)
        return f"Settings({', '.join(shown)})"


def keys_in(text: str) -> tuple[str, ...]:
    """Return the keys in one line of them."""
    return tuple(each.strip() for each in text.split(",") if each.strip())
