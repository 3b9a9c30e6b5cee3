"""The one tree of errors: the type says whose fault it is, the message what to do.

Every error takes its message alone, so it survives pickling between pool processes and
Celery's JSON form of an exception (module, class name, arguments).
"""

from __future__ import annotations

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
    """A task's arguments cannot be serialised, or are larger than a message may be.

    The caller's fault: nothing was enqueued. Pass plain data, or a reference to large data.
    """


class TaskNotRegisteredError(RelierError):
    """No worker knew the task's name for as long as it was kept for a newer one.

    The deployment's fault: import the module that defines the task, then `rl dlq release`.
    """


class HardTimeoutError(RelierError):
    """A task was stopped because it ran longer than its hard timeout.

    The task's fault, or the limit's: it is counted as failed, never as resurrected.
    """


class EmbeddedServerError(RelierError):
    """The embedded Redis or Valkey could not be found, started or kept alive.

    The environment's fault: the message says what to install, or shows the server's own log.
    """
