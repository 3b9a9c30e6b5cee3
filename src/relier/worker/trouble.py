"""Tell trouble that passes, of a server or a link, from what is wrong with what is sent."""

from __future__ import annotations

from celery.exceptions import BackendError
from kombu.exceptions import OperationalError

from relier.errors import ConfigurationError, PayloadError, RelierError
from relier.worker.fusion import is_connection_error


def may_pass(error: BaseException) -> bool:
    """Return whether trouble is with a server or a link, and not with what is sent."""
    if isinstance(error, PayloadError | ConfigurationError):
        return False
    return isinstance(error, RelierError | OperationalError | BackendError | OSError) or (
        isinstance(error, Exception) and is_connection_error(error)
    )
