"""Every key name of relier, built in one place.

The layout is that of a single server (standalone or Sentinel): records carry no queue, and one
script may touch several queues. The waiting lists are kombu's own, so that stock producers and
workers, Flower and KEDA go on working.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Keys:
    """Key names of one broker.

    Args:
        prefix: kombu's ``global_keyprefix``, put before every key.
    """

    prefix: str = ""

    def list(self, queue: str) -> str:
        """Return the base name of kombu's lists of a queue; a priority list adds its suffix."""
        return f"{self.prefix}{queue}"

    def replay(self, queue: str) -> str:
        """Return the list of committed tasks whose consequences must be sent again."""
        return f"{self.prefix}rl:{{{queue}}}:replay"

    def scheduled(self, queue: str) -> str:
        """Return the sorted set of messages that are not due yet."""
        return f"{self.prefix}rl:{{{queue}}}:scheduled"

    def claims(self, queue: str, worker: str) -> str:
        """Return the hash of what a worker holds of a queue."""
        return f"{self.prefix}rl:{{{queue}}}:claims:{worker}"

    def bell(self, queue: str) -> str:
        """Return the sorted set whose one marker wakes one waiting worker."""
        return f"{self.prefix}rl:{{{queue}}}:bell"

    def paused(self, queue: str) -> str:
        """Return the key whose existence stops claims."""
        return f"{self.prefix}rl:{{{queue}}}:paused"

    def purge(self, queue: str, batch: str) -> str:
        """Return the short-lived key that holds what one batch of a purge has done."""
        return f"{self.prefix}rl:{{{queue}}}:purge:{batch}"

    def events(self, queue: str) -> str:
        """Return the stream of lifecycle events."""
        return f"{self.prefix}rl:{{{queue}}}:events"

    def minute(self, queue: str, number: int) -> str:
        """Return the hash that counts what ended in one minute of the server's clock."""
        return f"{self.prefix}rl:{{{queue}}}:tally:m:{number}"

    def half_hour(self, queue: str, number: int) -> str:
        """Return the hash that counts what ended in one half hour of the server's clock."""
        return f"{self.prefix}rl:{{{queue}}}:tally:h:{number}"

    def open_minute(self, queue: str) -> str:
        """Return the number of the one minute that is not in its half hour yet."""
        return f"{self.prefix}rl:{{{queue}}}:tally:open"

    def dead(self, queue: str) -> str:
        """Return the sorted set of dead letters, by time of death."""
        return f"{self.prefix}rl:{{{queue}}}:dead"

    def dead_letter(self, queue: str, letter_id: str) -> str:
        """Return the hash of one dead letter."""
        return f"{self.prefix}rl:{{{queue}}}:dead:{letter_id}"

    def groups(self, queue: str) -> str:
        """Return the sorted set of the fingerprints of dead letters, by how many have each."""
        return f"{self.prefix}rl:{{{queue}}}:groups"

    def group(self, queue: str, fingerprint: str) -> str:
        """Return the sorted set of the dead letters of one fingerprint, by time of death."""
        return f"{self.prefix}rl:{{{queue}}}:group:{fingerprint}"

    def task(self, task_id: str) -> str:
        """Return the hash that records a task's life."""
        return f"{self.prefix}rl:task:{task_id}"

    def worker(self, worker_id: str) -> str:
        """Return the hash that is a worker's entry."""
        return f"{self.prefix}rl:worker:{worker_id}"

    def admission(self, mode: str, tenant: str = "") -> str:
        """Return what counts the admitted, of the whole cluster or of one tenant."""
        name = f"{self.prefix}rl:{{admission}}:{mode}"
        return f"{name}:{tenant}" if tenant else name

    @property
    def tenants(self) -> str:
        """Return the sorted set of tenants that something counts for."""
        return f"{self.prefix}rl:{{admission}}:tenants"

    @property
    def workers(self) -> str:
        """Return the set of worker ids."""
        return f"{self.prefix}rl:workers"

    @property
    def past_workers(self) -> str:
        """Return the stream of worker processes that are gone, with their names and why."""
        return f"{self.prefix}rl:workers:past"

    @property
    def queues(self) -> str:
        """Return the set of queue names relier has seen."""
        return f"{self.prefix}rl:queues"

    def idempotency(self, name: str) -> str:
        """Return the hash of an idempotency key, as ``CallKey`` names it."""
        return f"{self.prefix}rl:idem:{name}"

    def lock(self, name: str) -> str:
        """Return the hash of a key that guards a block of code."""
        return f"{self.prefix}rl:lock:{name}"

    @property
    def parked_keys(self) -> str:
        """Return the set of idempotency keys behind which duplicates are parked."""
        return f"{self.prefix}rl:parked"

    @property
    def fence(self) -> str:
        """Return the counter behind every fencing token."""
        return f"{self.prefix}rl:fence"

    @property
    def checkpoint_files(self) -> str:
        """Return the hash that says who holds each file of a checkpoint, and where they are."""
        return f"{self.prefix}rl:checkpoints"

    def receipt(self, token: str) -> str:
        """Return the short-lived key that keeps what one call was answered."""
        return f"{self.prefix}rl:receipt:{token}"

    @property
    def checkpoint_sweep(self) -> str:
        """Return the key that lets one process sweep files in each interval."""
        return f"{self.prefix}rl:checkpoints:sweep"

    @property
    def retention_turn(self) -> str:
        """Return the key that lets one process remove old dead letters in each interval."""
        return f"{self.prefix}rl:retention"

    @property
    def events_trim(self) -> str:
        """Return the key that lets one process trim the event streams in each interval."""
        return f"{self.prefix}rl:events:trim"

    @property
    def phoenix_tick(self) -> str:
        """Return the short-lived key that lets one resurrector work at a time."""
        return f"{self.prefix}rl:phoenix:tick"

    @property
    def task_template(self) -> str:
        """Return the record's name as a Lua format string (task id)."""
        return self._lua_format("rl:task:%s")

    @property
    def claims_template(self) -> str:
        """Return the claims' name as a Lua format string (queue, worker)."""
        return self._lua_format("rl:{%s}:claims:%s")

    def _lua_format(self, name: str) -> str:
        return self.prefix.replace("%", "%%") + name
