"""Operations that must happen in the end, whatever becomes of Redis meanwhile."""

from __future__ import annotations

import logging
import threading
from typing import Any

from relier.errors import RedisConnectionError
from relier.store.broker import Broker
from relier.store.operations import Operation

logger = logging.getLogger(__name__)


class Debts:
    """What a process owes the server.

    Args:
        broker: where it is paid.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._owed: list[Operation[Any]] = []
        self._lock = threading.Lock()

    def __bool__(self) -> bool:
        return bool(self._owed)

    def owe(self, operation: Operation[Any]) -> Any:
        """Run an operation that must happen in the end; None while Redis is away.

        What became of a dead process's claim is known here and nowhere else: the beat goes on
        trying until Redis has it.
        """
        try:
            return self._broker.store.run(operation)
        except RedisConnectionError as error:
            logger.warning("Redis is away (%s); will %s later", error, operation.script.name)
            with self._lock:
                self._owed.append(operation)
            return None

    def pay(self) -> None:
        """Run what is owed; what the server refuses for good is said, and let go."""
        while self._owed:
            operation = self._owed[0]
            try:
                self._broker.store.run(operation)
            except RedisConnectionError:
                raise
            except Exception:
                # What is owed after it must not wait for what can never be paid.
                logger.exception("Redis refuses to %s", operation.script.name)
            with self._lock:
                # The beat and a worker that leaves may both pay: each lets go only of what it ran.
                if self._owed[:1] == [operation]:
                    self._owed.pop(0)
