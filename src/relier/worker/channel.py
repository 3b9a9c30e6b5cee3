"""The channel that claims: kombu's, with a claim in place of BRPOP and a ledger in Redis."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from queue import Empty
from time import monotonic
from typing import Any, NamedTuple

from redis import exceptions

from relier.errors import ConfigurationError, RedisConnectionError
from relier.store import claiming
from relier.store.claiming import Harvest
from relier.store.client import judge
from relier.store.operations import Operation
from relier.worker import delivery, refusal
from relier.worker.credit import QoS
from relier.worker.intake import Intake
from relier.worker.membership import Membership
from relier.worker.plainchannel import PlainChannel

logger = logging.getLogger(__name__)

_LONGEST_WAIT_S = 1.0
_OVERDUE_S = 1.0
_BATCH_WAIT_S = 0.1
_SURELY_DUE_S = 0.001


class _Pending(NamedTuple):
    """A reply that is under way: what was asked, and what to do with the answer."""

    operation: Operation[Any] | None
    on_reply: Callable[[Any], bool]


def _nothing_delivered(told: Callable[[], None], _reply: object) -> bool:
    told()
    return False


class Channel(PlainChannel):
    """A channel that claims: what an app's connections have."""

    QoS = QoS
    reply_due_at = float("inf")
    _brpop_sent_at = float("-inf")

    def __init__(self, connection: Any, *args: Any, **kwargs: Any) -> None:
        self._no_ack: set[str] = set()
        self._rotation = 0
        self._listening = False
        self._next_due_s = _LONGEST_WAIT_S
        self._replies: list[_Pending] = []
        self._reconciled_at = monotonic()
        self._unfit_bells: set[str] = set()
        self.membership: Membership = connection.membership
        self._intake = Intake(self, self.membership, self._no_ack)
        super().__init__(connection, *args, **kwargs)

    # -- consuming

    def basic_consume(self, queue: str, no_ack: bool, *args: Any, **kwargs: Any) -> Any:
        """Consume by claims, unless nobody on this channel is going to acknowledge."""
        if no_ack:
            self._no_ack.add(queue)
        else:
            self._no_ack.discard(queue)
        reply = super().basic_consume(queue, no_ack, *args, **kwargs)
        claimable = self._claimable()
        if claimable:
            self.membership.join()
            self.membership.queues.update(claimable)
        return reply

    def _claimable(self) -> list[str]:
        """Return the queues to claim from: all or, if nobody acknowledges, none.

        The one connection cannot wait for a claim and for a BRPOP at once.
        """
        queues: list[str] = self.active_queues
        return [] if self._no_ack.issuperset(queues) else queues

    def _brpop_start(self, timeout: float | None = None) -> None:
        queues = self._claimable()
        if not queues:
            super()._brpop_start(timeout)
            self.reply_due_at = monotonic() + _LONGEST_WAIT_S + _OVERDUE_S * 5
            return
        room = self._room()
        if room <= 0:
            return
        membership = self.membership
        if membership.reply_lost:
            membership.new_epoch()
        self._in_poll = self.client.connection
        self._brpop_sent_at = monotonic()
        if self._listening:
            self._send_wait(queues)
            return
        for operation, told in membership.untold():
            self._send(operation, partial(_nothing_delivered, told))
        on_harvest = partial(self._on_harvest, membership.worker_id)
        self._send(self._claim(queues, room), on_harvest)

    def _room(self) -> int:
        """Return how many messages to claim now; 0 to wait until a batch is worth the trip."""
        if self.membership.draining:
            return 0
        if self.connection.cycle._in_protected_read:
            return 1  # drain_events: each call is one event
        if self.membership.pool == "solo" or "can_consume" in vars(self.qos):
            # The first of a batch would run before the next is looked at; or somebody, as Celery
            # does for worker_disable_prefetch, asks before each message whether it may be taken.
            return 1
        prefetch = self.qos.prefetch_count
        if not prefetch:
            return claiming.MOST_PER_CLAIM
        held = len(self.qos._delivered) - len(self.qos._dirty)
        busy_enough = max(2 * self.membership.concurrency, prefetch // 2)
        if held > busy_enough and monotonic() - self._brpop_sent_at < _BATCH_WAIT_S:
            return 0
        return int(prefetch - held)

    def _claim(self, queues: list[str], room: int) -> Operation[Harvest]:
        self._rotation = (self._rotation + 1) % len(queues)
        if self.queue_order_strategy == "round_robin":
            queues = queues[self._rotation :] + queues[: self._rotation]
        elif self.queue_order_strategy == "sorted":
            queues = sorted(queues)
        membership = self.membership
        suffixes = self._suffixes
        return claiming.claim(
            membership.broker.keys,
            membership.worker_id,
            membership.epoch,
            queues,
            room,
            suffixes,
            membership.shunned(),
        )

    def _send(self, operation: Operation[Any], on_reply: Callable[[Any], bool]) -> None:
        self._replies.append(_Pending(operation, on_reply))
        self.reply_due_at = monotonic() + _OVERDUE_S
        self.client.connection.send_command(*operation.command())

    def _send_wait(self, queues: list[str]) -> None:
        """Block on the bells until something may be there, at most a second."""
        keys = self.membership.broker.keys
        bells = [bell for bell in map(keys.bell, queues) if bell not in self._unfit_bells]
        wait_s = min(_LONGEST_WAIT_S, self._next_due_s)
        if bells and self._next_due_s < _LONGEST_WAIT_S:
            # The server looks at its clients' timeouts `hz` times a second, so the wait alone would
            # end up to 0.1 s late.
            at_s = monotonic() + self._next_due_s + _SURELY_DUE_S
            self.membership.wakes.set(id(self), at_s, partial(self._ring, bells[0]))
        self._replies.append(_Pending(None, self._on_bell))
        self.reply_due_at = monotonic() + wait_s + _OVERDUE_S
        # Without any bell that can ring, that of no queue: the wait is what matters.
        bells = bells or [keys.bell("")]
        self.client.connection.send_command("BZPOPMIN", *bells, f"{max(wait_s, 0.001):.3f}")

    def _ring(self, bell: str) -> None:
        """Wake one who waits, for something is due; whoever is woken in vain waits again."""
        try:
            self.membership.broker.store.redis.zadd(bell, {"b": 0})
        except exceptions.RedisError as error:
            logger.debug("could not ring for what is due, and the wait ends by itself: %s", error)

    def _on_bell(self, _reply: Any) -> bool:
        self.membership.wakes.drop(id(self))
        self._listening = False
        return False

    def _on_harvest(self, worker: str, harvest: Harvest) -> bool:
        if harvest.refused == "gone":
            self.membership.rejoin(worker)
            return False
        self._listening = not harvest.claimed
        if not harvest.claimed:
            self._unfit_bells.clear()  # an empty harvest has found every key sound
        self._next_due_s = (
            _LONGEST_WAIT_S if harvest.next_due_ms is None else harvest.next_due_ms / 1000
        )
        for claimed in harvest.claimed:
            self._intake.deliver(claimed)
        self._reconcile_at_times()
        return bool(harvest.claimed)

    def _brpop_read(self, **options: Any) -> bool:
        if not self._replies:
            return bool(super()._brpop_read(**options))
        delivered = False
        try:
            while self._replies:
                delivered = self._read_reply(self._replies.pop(0)) or delivered
        except BaseException:
            # Whatever else this connection would say belongs to an epoch that ends here.
            self.membership.reply_lost = True
            self._replies.clear()
            self.client.connection.disconnect()
            raise
        finally:
            self._in_poll = None
            self.reply_due_at = float("inf")
            self._flush_brpop_reauth()
        if not delivered:
            raise Empty
        return True

    def _read_reply(self, pending: _Pending) -> bool:
        try:
            reply = self.client.connection.read_response()
        except exceptions.NoScriptError:
            # A SCRIPT FLUSH, or a restart of the server: nothing was done yet.
            if pending.operation is None:
                raise
            try:
                reply = self.membership.broker.store.run_once(pending.operation)
            except ConfigurationError as misfit:
                return self._leave_alone(str(misfit))
            return pending.on_reply(reply)
        except exceptions.ResponseError as error:
            if not str(error).startswith("WRONGTYPE"):
                judge(error, self.broker.address, out_of_time=True)
                raise
            if pending.operation is None:
                self._find_unfit_bells()
                return False
            return self._leave_alone(str(error))
        return pending.on_reply(pending.operation.parse(reply) if pending.operation else reply)

    def _leave_alone(self, wrong: str) -> bool:
        """Take nothing for a while: a key is not what it should be, and no other queue has more."""
        self._intake.complain(wrong)
        self._listening = True
        return False

    def _find_unfit_bells(self) -> None:
        """Wait no more on keys that are no bells; the next claim says which they are."""
        broker = self.membership.broker
        for bell in map(broker.keys.bell, self._claimable()):
            if broker.store.redis.type(bell) not in (b"zset", b"none"):
                self._unfit_bells.add(bell)

    def _on_connection_disconnect(self, connection: Any) -> None:
        if self._in_poll is connection and self._replies:
            self.membership.reply_lost = True
            self._replies.clear()
        super()._on_connection_disconnect(connection)

    def _reconcile_at_times(self) -> None:
        """Once a heartbeat TTL, between two claims, give back what nobody here holds."""
        ttl_s = self.membership.broker.settings.heartbeat_ttl_s
        if monotonic() - self._reconciled_at > ttl_s:
            self._reconciled_at = monotonic()
            self.membership.reconcile()

    def basic_get(self, queue: str, no_ack: bool = False, **kwargs: Any) -> Any:
        """Claim one message, or return None."""
        if no_ack:
            return super().basic_get(queue, no_ack=no_ack, **kwargs)
        membership = self.membership
        membership.join()
        membership.queues.add(queue)
        membership.flush_ended()
        if membership.reply_lost:
            membership.new_epoch()
        try:
            harvest = membership.broker.store.run_once(self._claim([queue], 1))
        except RedisConnectionError:
            membership.reply_lost = True
            raise
        for claimed in harvest.claimed:
            try:
                delivery.verify(claimed, self.broker.keyring)
                payload = delivery.read(claimed)
            except delivery.UntrustedError as error:
                refusal.refuse(membership, claimed, error)
                continue
            except delivery.UnreadableError as error:
                self._intake.bury(claimed, str(error))
                continue
            membership.hold(claimed.claim.tag, delivery.adopt(claimed, payload))
            message = self.Message(payload, channel=self)
            self.qos.append(message, message.delivery_tag)
            return message
        return None

    def _basic_cancel(self, consumer_tag: str) -> Any:
        queue = self._tag_to_queue.get(consumer_tag)
        reply = super()._basic_cancel(consumer_tag)
        if queue not in self._active_queues:
            self._no_ack.discard(queue)
        return reply

    def close(self) -> None:
        """Close; what was claimed but not started goes back to its queue."""
        if self._in_poll and self._replies:
            # No need to read the reply: a new epoch gives back what it carries, or refuses it.
            self._replies.clear()
            self.client.connection.disconnect()
            self._in_poll = None
            self.membership.reply_lost = True
        if not self.closed and self._qos is not None and self.membership.joined:
            try:
                self._qos.restore_unacked()
                self.membership.flush_ended()
                if self.membership.reply_lost:
                    self.membership.new_epoch()
            except RedisConnectionError as error:
                logger.warning("could not give claims back (%s); they go back later", error)
        super().close()
