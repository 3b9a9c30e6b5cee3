"""Prefetch credit: kombu's, for messages whose ledger is in Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kombu.transport import virtual

if TYPE_CHECKING:
    from relier.worker.channel import Channel


class QoS(virtual.QoS):
    """Prefetch credit. What is unacknowledged lives in Redis, in the claims."""

    channel: Channel
    restore_at_shutdown = False

    def ack(self, delivery_tag: str) -> None:
        """End the claim unless a pool process has that duty, and free the credit."""
        self.channel.membership.end(delivery_tag, "acknowledged")
        super().ack(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Put the message back behind what waits in its queue, as kombu does, or end it."""
        if requeue:
            self.channel.membership.requeue(delivery_tag)
        else:
            self.channel.membership.end(delivery_tag, "rejected")
        super().ack(delivery_tag)

    def restore_unacked(self, _client: object = None) -> list[Any]:
        """Give back what was delivered on this channel and neither started nor ended."""
        self._flush()
        tags = list(self._delivered)
        self._delivered.clear()
        self.channel.membership.give_back(tags)
        return []

    def restore_visible(self, *args: object, **kwargs: object) -> None:
        """Do nothing: no message becomes visible by a timeout."""
