"""Remote control that outlives the workers it speaks to."""

from __future__ import annotations

from typing import Any

from celery.app import control
from celery.utils.functional import maybe_list

from relier.store import running


class Control(control.Control):
    """Celery's, with revocations that are kept where the tasks are."""

    def revoke(self, task_id: Any, *args: Any, **kwargs: Any) -> Any:
        """Revoke tasks, wherever they wait; workers that start later know of it too.

        Args:
            task_id: an id, or a list of them.
            args, kwargs: Celery's own (``terminate`` also stops one that runs).

        Raises:
            RedisConnectionError: Redis did not answer within the socket timeout.
        """
        broker = self.app.relier.broker
        for each in maybe_list(task_id) or ():
            broker.store.run(running.revoke(broker.keys, str(each)))
        return super().revoke(task_id, *args, **kwargs)
