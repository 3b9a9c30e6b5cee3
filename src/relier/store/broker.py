"""One broker as a process knows it: its settings, its key names and its clients."""

from __future__ import annotations

import asyncio
from functools import cached_property
from weakref import WeakKeyDictionary

from relier.config import Settings
from relier.protocol import outcome
from relier.protocol.admission import Rules
from relier.protocol.envelope import Keyring
from relier.store.address import Address
from relier.store.checkpoint_files import CheckpointFiles, files_of
from relier.store.client import AsyncStore, Store
from relier.store.keys import Keys
from relier.store.reaping import ReapRules


class Broker:
    """A server, and how relier was told to use it.

    Args:
        address: where the server is.
        settings: validated settings.
        prefix: kombu's ``global_keyprefix``.
    """

    def __init__(self, address: Address, settings: Settings, prefix: str = "") -> None:
        self.address = address
        self.settings = settings
        self.keys = Keys(prefix)
        self.admission = Rules.of(settings)
        self.keyring = Keyring(settings.secrets, required=settings.require_signature)
        self._async_stores: WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncStore]
        self._async_stores = WeakKeyDictionary()

    def __repr__(self) -> str:
        return f"<Broker {self.address.public}>"

    @cached_property
    def store(self) -> Store:
        """Return the process's synchronous client; its pool notices a fork."""
        return self.new_store()

    def new_store(self, *, max_connections: int | None = None) -> Store:
        """Return a synchronous client with a pool of its own."""
        return Store(
            self.address,
            self.keys,
            timeout_s=self.settings.redis_socket_timeout_s,
            max_connections=max_connections or self.settings.redis_max_connections,
        )

    def async_store(self) -> AsyncStore:
        """Return the client of the running event loop."""
        loop = asyncio.get_running_loop()
        store = self._async_stores.get(loop)
        if store is None:
            self._forget_closed_loops()
            store = self._async_stores[loop] = AsyncStore(
                self.address,
                self.keys,
                timeout_s=self.settings.redis_socket_timeout_s,
                max_connections=self.settings.redis_max_connections,
            )
        return store

    def _forget_closed_loops(self) -> None:
        """Let go of clients whose event loop is gone: each ``asyncio.run`` makes a loop."""
        for loop, store in list(self._async_stores.items()):
            if loop.is_closed():
                store.drop()
                del self._async_stores[loop]

    @cached_property
    def checkpoint_files(self) -> CheckpointFiles | None:
        """Return the backend of large checkpoints; None when there is none."""
        return files_of(self.settings)

    @cached_property
    def reap_rules(self) -> ReapRules:
        """Return how resurrection is bounded here."""
        settings = self.settings
        return ReapRules(
            max_resurrections=settings.max_resurrections,
            max_interruptions=settings.max_interruptions,
            batch_size=settings.resurrection_batch_size,
            max_queue_depth=settings.resurrection_max_queue_depth,
            recovery_queue=settings.recovery_queue or "",
            exhausted_blame=outcome.encode(
                outcome.exhausted(
                    "max_resurrections",
                    "the task took its process down more often than max_resurrections allows; "
                    "see its history with `rl dlq inspect`, then `rl dlq release`",
                )
            ),
            exhausted_interruptions=outcome.encode(
                outcome.exhausted(
                    "max_interruptions",
                    f"its worker died under it more than {settings.max_interruptions} times; "
                    "mend the workers, then `rl dlq release`",
                )
            ),
        )
