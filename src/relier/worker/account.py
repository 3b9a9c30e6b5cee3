"""The account of a drain: what became of every task that the worker held."""

from __future__ import annotations

import logging
from typing import NamedTuple

logger = logging.getLogger(__name__)


class Drained(NamedTuple):
    """How many tasks ended in each way.

    Args:
        completed: ran to their end here, whatever it was.
        handed_over: were stopped and continue on another worker, unblamed.
        given_back: had not started.
        left: neither; Redis was away, or their process could not be stopped.
    """

    completed: int = 0
    handed_over: int = 0
    given_back: int = 0
    left: int = 0

    def __str__(self) -> str:
        ways = [f"{self.completed} completed", f"{self.handed_over} handed off"]
        ways.append(f"{self.given_back} given back")
        if self.left:
            ways.append(f"{self.left} left for others to bring back")
        return ", ".join(ways)


class Account:
    """Writes each task's end down as it comes."""

    def __init__(self) -> None:
        self.sums = Drained()

    def completed(self, task: str, then: str = "") -> None:
        """Note a task that ran to its end."""
        self._note("completed", f"{task} completed{then}")

    def handed_over(self, task: str) -> None:
        """Note a task that was stopped and goes on elsewhere."""
        self._note("handed_over", f"{task} handed off")

    def given_back(self, task: str) -> None:
        """Note a task that had not started."""
        self._note("given_back", f"{task} given back")

    def left(self, task: str, why: str) -> None:
        """Note a task that others have to bring back."""
        logger.error("drain: %s is left for others to bring back: %s", task, why)
        self.sums = self.sums._replace(left=self.sums.left + 1)

    def _note(self, way: str, said: str) -> None:
        logger.info("drain: %s", said)
        self.sums = self.sums._replace(**{way: getattr(self.sums, way) + 1})
