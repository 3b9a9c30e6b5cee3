"""What the model's world is made of: immutable, hashable values, and how to change one.

``Redis`` is what the server holds; ``model.py`` has one pure function per script that moves it.
Time does not appear: what is scheduled may fall due at any moment.
"""

from __future__ import annotations

from typing import NamedTuple

QUEUED, STARTED, COMMITTED, CONTINUED, ENDED, DEAD = "q", "r", "c", "w", "e", "d"
"""States of a record. CONTINUED: committed and acknowledged, and the same id goes on elsewhere."""


class Message(NamedTuple):
    """The bytes of one publish.

    Args:
        task: the task id.
        generation: (replacements, retries) as one number, as the message says.
        token: minted once per logical publish.
    """

    task: str
    generation: int
    token: str

    def __str__(self) -> str:
        return f"{self.task}{self.generation}({self.token})"


class Outcome(NamedTuple):
    """What a commit saved.

    Args:
        final: "ended", "dead", "next" (own id again, in ``follower``) or "continued" (own id again,
            published later by a consequence).
        sends: the consequences, in order.
        follower: the next generation, which ``ack`` enqueues.
        root: root token of the life that committed.
        generation: which generation of that life.
    """

    final: str
    sends: tuple[Message, ...]
    follower: Message | None
    root: str
    generation: int


REPLACED = 2**32
"""What a replacement adds to a generation; a retry adds 1."""


class Saved(NamedTuple):
    """A checkpoint.

    Args:
        replacements: how often its task was replaced by another of the same id before.
        worker, number: the claim under which it was saved.
        count: which one under that claim, from 1.
    """

    replacements: int
    worker: int
    number: int
    count: int


class Claim(NamedTuple):
    """A message in a worker's hands; its outcome lives here once it has committed.

    Args:
        key: the idempotency key that it owns while it runs.
    """

    worker: int
    number: int
    message: Message
    started: bool = False
    outcome: Outcome | None = None
    replays: int = 0
    key: str = ""


class Replay(NamedTuple):
    """A committed task whose consequences somebody must send (again)."""

    message: Message
    outcome: Outcome
    replays: int


class Entry(NamedTuple):
    """A worker as the server knows it.

    Args:
        dying: its started count, -1 while it lives.
        trial: the claim of the suspect on trial, -1 for several, 0 for none.
    """

    worker: int
    epoch: int = 1
    beat: int = 0
    dying: int = -1
    trial: int = 0


class Known(NamedTuple):
    """A token in a record: the generation and the life it was accepted for."""

    token: str
    generation: int
    root: str


class Record(NamedTuple):
    """What is remembered of one task id."""

    task: str
    state: str
    generation: int
    root: str
    tokens: tuple[Known, ...]
    worker: int = 0
    number: int = 0
    blame: int = 0
    interruptions: int = 0
    saved: Saved | None = None

    def knows(self, token: str) -> Known | None:
        """Return what is known of a token."""
        for known in self.tokens:
            if known.token == token:
                return known
        return None

    def learn(self, token: str, generation: int) -> Record:
        """Return the record with a token added for the present life."""
        kept = [known for known in self.tokens if known.token != token]
        known = Known(token, generation, self.root)
        return self._replace(tokens=tuple(sorted([*kept, known])))


class Key(NamedTuple):
    """An idempotency key: who owns it, or that its result is kept."""

    name: str
    worker: int = 0
    number: int = 0
    done: bool = False


class Redis(NamedTuple):
    """All that the server holds.

    Args:
        queue: waiting messages, the head first.
        scheduled: sorted, no order in time.
        replay: committed tasks to be taken up, the head first.
        claims: sorted by worker and number.
        workers: entries, sorted.
        records: sorted by task id.
        dead: (letter id, message), sorted.
        kept: (letter id, its checkpoint), sorted; not every letter has one.
        kids: the queue of consequences; ideal workers run it.
        keys: sorted by name.
        parked: duplicates that wait for a key's owner, the oldest first.
    """

    queue: tuple[Message, ...] = ()
    scheduled: tuple[Message, ...] = ()
    replay: tuple[Replay, ...] = ()
    claims: tuple[Claim, ...] = ()
    workers: tuple[Entry, ...] = ()
    records: tuple[Record, ...] = ()
    dead: tuple[tuple[str, Message], ...] = ()
    kept: tuple[tuple[str, Saved], ...] = ()
    kids: tuple[Message, ...] = ()
    keys: tuple[Key, ...] = ()
    parked: tuple[Message, ...] = ()

    def entry(self, worker: int) -> Entry | None:
        """Return a worker's entry."""
        for entry in self.workers:
            if entry.worker == worker:
                return entry
        return None

    def alive(self, worker: int) -> bool:
        """Tell whether a worker has an entry and nobody has begun to reap it."""
        entry = self.entry(worker)
        return entry is not None and entry.dying < 0

    def claim(self, worker: int, number: int) -> Claim | None:
        """Return a claim while it exists."""
        for claim in self.claims:
            if claim.number == number and claim.worker == worker:
                return claim
        return None

    def record(self, task: str) -> Record | None:
        """Return a task's record."""
        for record in self.records:
            if record.task == task:
                return record
        return None

    def with_entry(self, entry: Entry) -> Redis:
        """Return the server with an entry written."""
        others = [e for e in self.workers if e.worker != entry.worker]
        return self._replace(workers=tuple(sorted([*others, entry])))

    def without_entry(self, worker: int) -> Redis:
        """Return the server with an entry removed."""
        return self._replace(workers=tuple(e for e in self.workers if e.worker != worker))

    def with_claim(self, claim: Claim) -> Redis:
        """Return the server with a claim written."""
        key = (claim.worker, claim.number)
        others = [c for c in self.claims if (c.worker, c.number) != key]
        return self._replace(claims=tuple(sorted([*others, claim], key=lambda c: c[:2])))

    def without_claim(self, claim: Claim) -> Redis:
        """Return the server with a claim removed."""
        key = (claim.worker, claim.number)
        left = tuple(c for c in self.claims if (c.worker, c.number) != key)
        return self._replace(claims=left)

    def key(self, name: str) -> Key:
        """Return an idempotency key."""
        return next((key for key in self.keys if key.name == name), Key(name))

    def with_key(self, key: Key) -> Redis:
        """Return the server with a key written; one that says nothing does not exist."""
        others = [each for each in self.keys if each.name != key.name]
        kept = [key] if key.worker or key.done else []
        return self._replace(keys=tuple(sorted([*others, *kept])))

    def with_record(self, record: Record) -> Redis:
        """Return the server with a record written."""
        others = [r for r in self.records if r.task != record.task]
        return self._replace(records=tuple(sorted([*others, record], key=lambda r: r.task)))

    def push(self, message: Message) -> Redis:
        """Return the server with a message at the tail of its queue."""
        if is_consequence(message.task):
            return self._replace(kids=(*self.kids, message))
        return self._replace(queue=(*self.queue, message))

    def push_head(self, message: Message) -> Redis:
        """Return the server with a message given back to the head of its queue."""
        return self._replace(queue=(message, *self.queue))

    def replay_first(self, message: Message, outcome: Outcome, replays: int) -> Redis:
        """Return the server with an outcome at the head of those that wait to be taken up."""
        return self._replace(replay=(Replay(message, outcome, replays), *self.replay))

    def schedule(self, message: Message) -> Redis:
        """Return the server with a message that waits for its time; equal bytes wait once."""
        return self._replace(scheduled=tuple(sorted({*self.scheduled, message})))


class Fact(NamedTuple):
    """What a script did, as its event would say; the laws are judged by these.

    Args:
        kind: accepted, started, saved, committed, ended, dead, revived, removed or returned.
        message: which message.
        detail: accepted: "new", "next", "copy" or "noop"; committed, ended: the outcome;
            returned: "", "own" or "whole" (what it was blamed for); saved: the checkpoint; started:
            the generation, and the checkpoint that was handed over; revived: the new token.
        root: root token in the record.
    """

    kind: str
    message: Message
    detail: object = ""
    root: str = ""


class Reply(NamedTuple):
    """What a script leaves behind, answers, and did."""

    redis: Redis
    verdict: object
    facts: tuple[Fact, ...] = ()


def key_of(task: str) -> str:
    """Return the idempotency key of a task; i and j are calls with the same arguments."""
    return "K" if task in ("i", "j") else ""


def is_consequence(task: str) -> bool:
    """Tell whether a task id was derived by a parent."""
    return ":" in task


def derive(root: str, generation: int, index: str) -> str:
    """Return a token that the same parent in the same life always derives."""
    return f"{root}.{index}{generation}"
