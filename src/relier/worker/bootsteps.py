"""Steps of a worker's start and stop: join the fleet, run Phoenix, leave it tidy."""

from __future__ import annotations

import gc
import logging
from typing import Any

from celery import bootsteps, signals
from celery.platforms import EX_FAILURE

from relier.errors import ConfigurationError, RedisConnectionError
from relier.phoenix.service import Phoenix
from relier.worker import timing, versions
from relier.worker.drain import Drain, Order
from relier.worker.membership import Membership
from relier.worker.restart import Restart
from relier.worker.shutdown import ShutdownSignals, owns_process
from relier.worker.stopping import Bodies, Processes
from relier.worker.termination import Termination
from relier.worker.transport import Transport

logger = logging.getLogger(__name__)

_MAINTAIN_POOL_S = 0.1


class Fleet(bootsteps.StartStopStep):
    """Be a member of the fleet for as long as the consumer runs."""

    requires = ("celery.worker.consumer.connection:Connection",)

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        super().__init__(consumer, **kwargs)
        self._phoenix: Phoenix | None = None
        self._timer: Any = None
        self._membership: Membership | None = None
        self._drain: Drain | None = None
        self._controller = consumer.controller
        if _pool_name(consumer) == "prefork":
            # Now, for its processes are forked before this step is started.
            consumer.app.relier.timekeeper.watch_pool()
            # A collection writes into every object that it looks at, and a page that is written to
            # is shared no more: what has been imported by now is to be left alone.
            gc.freeze()

    def start(self, consumer: Any) -> None:
        """Join, or, after a lost connection, begin a new epoch."""
        transport = consumer.connection.transport
        if not isinstance(transport, Transport) or transport.membership is None:
            raise ConfigurationError(
                f"the worker's broker is {consumer.connection.as_uri()}, not relier's transport: "
                "call Relier(app) after the broker URL is set, and do not set broker_transport"
            )
        membership = self._membership = transport.membership
        if not membership.joined:
            self._join(consumer, membership)
        membership.reply_lost = True
        self._watch_pool(consumer)

    def stop(self, consumer: Any) -> None:
        """Stop claiming: what has not started goes back to its queue at once.

        Whatever ends the worker comes by here; a lost connection does, too, and the worker goes on.
        """
        if self._drain is not None and consumer.blueprint.state != bootsteps.RUN:
            if not self._drain.asked:
                self._drain.ask(Order("the worker stops"))
        elif self._membership is not None:
            try:
                self._membership.new_epoch()
            except RedisConnectionError as error:
                logger.warning("could not give claims back (%s); they go back later", error)

    def shutdown(self, _consumer: Any) -> None:
        """Leave the fleet: the pool has ended. Celery's cold ways send no signal of it."""
        self._leave()

    def _join(self, consumer: Any, membership: Membership) -> None:
        versions.check(consumer.app)
        membership.pool = _pool_name(consumer)
        membership.concurrency = consumer.pool.num_processes or 1
        membership.name = consumer.hostname
        restart = Restart(owns_process=owns_process())
        membership.restarts = restart.ability
        membership.join()
        self._phoenix = Phoenix(membership.broker)
        self._phoenix.start()
        self._drain = self._ready_to_drain(consumer, membership, restart)
        signals.worker_shutdown.connect(self._leave, weak=False)
        self._say_what_the_pool_cannot(consumer)

    def _say_what_the_pool_cannot(self, consumer: Any) -> None:
        protected = [each for each in consumer.app.tasks.values() if hasattr(each, "hard_timeout")]
        said = timing.what_a_pool_cannot(_pool_name(consumer), protected)
        if said:
            logger.warning(said)

    def _ready_to_drain(self, consumer: Any, membership: Membership, restart: Restart) -> Drain:
        kind = Processes if membership.pool == "prefork" else Bodies
        bodies = kind(membership, consumer.pool, consumer.app.relier.timekeeper)
        drain = Drain(membership, bodies, restart, owns_process=owns_process())
        drain.start()
        membership.on_drain = drain.hear
        membership.on_stop = Termination(membership, consumer, bodies).hear
        if owns_process():
            ShutdownSignals(drain, consumer).install()
        return drain

    def _watch_pool(self, consumer: Any) -> None:
        """Notice a dead pool process in a tenth of a second; Celery's own look takes up to 5 s."""
        maintain = getattr(consumer.pool, "maintain_pool", None)
        if consumer.hub is None or maintain is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = consumer.hub.call_repeatedly(_MAINTAIN_POOL_S, maintain)

    def _leave(self, **_: Any) -> None:
        if self._phoenix is not None:
            self._phoenix.stop()
        if self._drain is not None and not self._drain.finish():
            self._controller.exitcode = EX_FAILURE
        if self._membership is not None:
            self._membership.leave()


def _pool_name(consumer: Any) -> str:
    return type(consumer.pool).__module__.rpartition(".")[2]
