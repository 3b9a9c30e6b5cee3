"""The one tree of errors: the type says whose fault it is, the message what to do.

Every error takes its message alone (and when to come back, where that is known), so it survives
pickling between pool processes and Celery's JSON form of an exception (module, class name,
arguments).
"""

from __future__ import annotations

import math

from kombu.exceptions import OperationalError


class RelierError(Exception):
    """Base of everything relier raises on purpose; catch it to catch them all."""


class ConfigurationError(RelierError):
    """A setting, or the app it is applied to, cannot work.

    The operator's fault: change the variable or option that the message names.
    """


class RedisConnectionError(RelierError, OperationalError):
    """Redis did not answer within the socket timeout, or refused us.

    The environment's fault. A dispatch that raises this may or may not have been accepted. It is
    kombu's `OperationalError` too, so code that catches what Celery raises goes on working.
    """


class RedisPermissionError(RelierError):
    """Redis knows the user, and forbids a command or a key that relier needs.

    The operator's fault: `rl doctor` prints the line that grants what is lacking.
    """


class RedisFullError(RelierError):
    """Redis refused a write because it is out of memory.

    The operator's fault: raise `maxmemory` or drain the queues. Nothing was enqueued.
    """


class UnsupportedServerError(RelierError):
    """The server is older than Redis 7, or lacks a command that the guarantees rest on.

    The operator's fault: upgrade to Redis 7 or later, or to any Valkey.
    """


class MaxResurrectionsExceededError(RelierError):
    """A task took its process down more often than `max_resurrections` allows.

    The task's fault: read its history with `rl dlq inspect`, mend it, then `rl dlq release`.
    """


class PayloadError(RelierError):
    """What is dispatched or saved cannot be serialised, is too large, or names no tenant.

    The caller's fault: nothing was enqueued or saved. Pass plain data, or a reference to large
    data.
    """


class CheckpointError(RelierError):
    """A checkpoint could not be written to its backend, or not read from it.

    The environment's fault: a full disk, or a folder that not every worker shares. The checkpoint
    before it is still valid.
    """


class AdmissionRejectedError(RelierError):
    """A dispatch was refused: a limit of admission has no room for it now.

    Nobody's fault, unless the limit is too low. Nothing of the refused dispatch was enqueued; of a
    bulk dispatch, the chunks before it were, see `accepted`.

    Args:
        retry_after: seconds after which there is room, on the server's clock. A caller that waits
            that long is admitted if nobody else was quicker. For a queue's depth it is a hint.
        reason: which limit it was.

    Attributes:
        accepted: the ids of the tasks that a bulk dispatch had got accepted before.
    """

    accepted: tuple[str, ...] = ()

    def __init__(self, retry_after: float, reason: str = "the limit of admission is reached"):
        self.retry_after = float(retry_after)
        self.reason = reason
        super().__init__(self.retry_after, reason)

    def __str__(self) -> str:
        """Say which limit it was, and when to come back."""
        return f"{self.reason}: nothing was enqueued. Try again in {self.retry_after:.3f} s."

    @property
    def headers(self) -> dict[str, str]:
        """Return the header of an HTTP answer with status 429 (whole seconds, rounded up)."""
        return {"Retry-After": str(max(math.ceil(self.retry_after), 1))}


class AdmissionTooLargeError(RelierError):
    """More tasks were dispatched at once than a limit of admission ever admits.

    The caller's fault: no waiting would help. Send fewer at a time, or have the limit raised.

    Attributes:
        accepted: the ids of the tasks that the same bulk dispatch had got accepted before.
    """

    accepted: tuple[str, ...] = ()


class TaskNotRegisteredError(RelierError):
    """No worker knew the task's name for as long as it was kept for a newer one.

    The deployment's fault: import the module that defines the task, then `rl dlq release`.
    """


class PayloadIntegrityError(RelierError):
    """A task message is not signed by a key that is trusted here, or not as it was signed.

    The fault of whoever wrote it, or of a key that was not handed out: nothing of it was run. The
    dead letter keeps it as it came; see `rl dlq inspect`.
    """


class SchemaMigrationError(RelierError):
    """A message's arguments cannot be brought into the shape that its task takes now.

    The migration's fault, or the deployment's: the dead letter keeps the message as it came. Mend
    the migration, or deploy the newer code, then `rl dlq release`.
    """


class HardTimeoutError(RelierError):
    """A task was stopped because it ran longer than its hard timeout.

    The task's fault, or the limit's: it is counted as failed, never as resurrected.
    """


class IdempotencyInFlightError(RelierError):
    """Another owner has the idempotency key, and the caller did not want to wait.

    Nobody's fault: try again later.
    """


class StaleFenceError(RelierError):
    """Who asks does not hold its claim or its lock any more.

    Nobody's fault: its worker was given up for dead, or its lease ran out. Nothing was changed;
    stop, for the task runs elsewhere.
    """


class EmbeddedServerError(RelierError):
    """The embedded Redis or Valkey could not be found, started or kept alive.

    The environment's fault: the message says what to install, or shows the server's own log.
    """
