"""The poller of a connection's channels, which lets no reply be overdue."""

from __future__ import annotations

import logging
from time import monotonic

from kombu.transport import redis as kombu_redis

logger = logging.getLogger(__name__)


class Poller(kombu_redis.MultiChannelPoller):
    """kombu's poller, with an eye on replies that are overdue."""

    def on_poll_start(self) -> None:
        """Send what each channel should have under way."""
        self._drop_overdue()
        super().on_poll_start()

    def maybe_check_brpop_health(self) -> None:
        """Drop a connection whose reply is overdue: the link may be dead without a FIN."""
        self._drop_overdue()
        super().maybe_check_brpop_health()

    def _drop_overdue(self) -> None:
        for channel in list(self._channels):
            connection = channel._in_poll
            if connection and monotonic() > channel.reply_due_at:
                sock = getattr(connection, "_sock", None)
                if sock is not None and not kombu_redis._socket_readable(sock):
                    logger.warning("a reply from Redis is overdue; dropping the connection")
                    connection.disconnect()
