"""The beat: one OS thread per worker process that says "alive" and watches its own connection.

An OS thread, for the timers of Celery's event loop stop while a thread pool drains and stall under
the solo pool. The thread sleeps on its socket: if the server (or a failover) closes it, the worker
registers its new connection at once, long before anybody could call it dead.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import socket
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

import redis
from redis import exceptions
from redis.exceptions import RedisError

from relier.errors import RelierError
from relier.store import claiming, fleet
from relier.store.lines import new_connection

if TYPE_CHECKING:
    from relier.worker.membership import Membership

logger = logging.getLogger(__name__)

_RECONNECT_PAUSE_S = 0.05
_MOST_BETWEEN_BEATS_S = 0.5
_ENDED_WITHIN_S = 0.05
_REFUSALS = (exceptions.ResponseError, exceptions.BusyLoadingError)

_open_beats: weakref.WeakSet[Beat] = weakref.WeakSet()


class Beat(threading.Thread):
    """Beat for one membership until stopped."""

    def __init__(self, membership: Membership) -> None:
        super().__init__(name="relier-beat", daemon=True)
        self._membership = membership
        self._every_s = min(membership.broker.settings.heartbeat_ttl_s / 5, _MOST_BETWEEN_BEATS_S)
        self._stopping = threading.Event()
        self._connection: redis.connection.ConnectionInterface | None = None
        self._waker, self._woken = socket.socketpair()
        _open_beats.add(self)

    def run(self) -> None:
        """Beat, wait on the socket, and beat again."""
        while not self._stopping.is_set():
            try:
                self._serve()
            except (RedisError, RelierError, OSError) as error:
                if not self._stopping.is_set():
                    logger.debug("beat: %s; connecting again", error)
                # A server that answers, but refuses, is not to be asked any faster for that.
                refuses = isinstance(error, _REFUSALS)
                self._connect_again(self._every_s if refuses else _RECONNECT_PAUSE_S)
            except Exception:
                # A beat that ends of a surprise would have a healthy worker reaped.
                logger.exception("the beat stumbled; connecting again")
                self._connect_again()
        self._disconnect()

    def _connect_again(self, pause_s: float = _RECONNECT_PAUSE_S) -> None:
        self._disconnect()
        self._stopping.wait(pause_s)

    def stop(self) -> None:
        """End the thread and close its connection."""
        self._stopping.set()
        self.wake()
        if threading.current_thread() is not self:
            self.join(timeout=2.0)

    def wake(self) -> None:
        """Have the server told soon what was ended."""
        with contextlib.suppress(OSError):
            self._waker.send(b"w")

    def close_inherited(self) -> None:
        """Close this process's copy of the parent's socket, so that it ends with the parent.

        Only the descriptor is closed: a shutdown would cut the parent's own connection.
        """
        sock = getattr(self._connection, "_sock", None)
        if sock is not None:
            sock.close()

    def _serve(self) -> None:
        address = self._connect()
        while not self._stopping.is_set():
            self._beat(address)
            self._membership.debts.pay()
            self._membership.comparison.make_at_times()
            until = time.monotonic() + self._every_s
            while (wait_s := until - time.monotonic()) > 0 and not self._stopping.is_set():
                self._sleep_on_socket(wait_s)

    def _connect(self) -> dict[str, str | int]:
        """Connect, and return what identifies the connection to the server."""
        self._disconnect()
        pool = self._membership.broker.store.redis.connection_pool
        connection = self._connection = new_connection(pool)
        connection.connect()
        client_id = int(self._ask("CLIENT", "ID"))
        info = self._ask("INFO", "server")
        run_id = next(
            line.partition(":")[2].strip()
            for line in info.decode().splitlines()
            if line.startswith("run_id:")
        )
        self._membership.comparison.served_by(run_id)
        store = self._membership.broker.store
        if not fleet.connected_clients(store, [str(client_id)]):
            # A proxy's connection, or one we may not ask about: silence alone must tell.
            return {"client_id": "", "run_id": run_id}
        return {"client_id": client_id, "run_id": run_id}

    def _ask(self, *command: str | bytes | int | float) -> Any:
        assert self._connection is not None
        self._connection.send_command(*command)
        return self._connection.read_response()

    def _beat(self, address: dict[str, str | int]) -> None:
        membership = self._membership
        worker = membership.worker_id
        fields = {**address, "queues": ",".join(sorted(membership.queues))}
        if membership.draining:
            fields["draining"] = 1
        stopped = list(membership.stopped)
        operation = claiming.beat(membership.broker.keys, worker, fields, stopped)
        try:
            seen = operation.parse(self._ask(*operation.command()))
        except redis.exceptions.NoScriptError:
            seen = operation.parse(
                self._ask("EVAL", operation.script.source, *operation.command()[2:])
            )
        membership.stopped.difference_update(stopped)
        if not seen.alive and not self._stopping.is_set():
            membership.rejoin(worker)
            self._beat(address)
            return
        if seen.stop and membership.on_stop is not None:
            membership.on_stop(seen.stop)
        if seen.drain and membership.on_drain is not None:
            membership.on_drain(seen.drain)

    def _sleep_on_socket(self, wait_s: float) -> None:
        sock = getattr(self._connection, "_sock", None)
        if sock is None:
            raise ConnectionError("not connected")
        with selectors.DefaultSelector() as selector:
            selector.register(sock, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            readable = [key.fileobj for key, _ in selector.select(wait_s)]
        if sock in readable:
            # Nothing was asked, so this is the server closing the connection.
            raise ConnectionError("the server closed the beat's connection")
        if self._woken in readable:
            self._woken.recv(4096)
            if not self._stopping.wait(_ENDED_WITHIN_S):
                self._membership.flush_ended()

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.disconnect()
            self._connection = None


def _close_inherited_beats() -> None:
    for beat in list(_open_beats):
        beat.close_inherited()
    _open_beats.clear()


os.register_at_fork(after_in_child=_close_inherited_beats)
