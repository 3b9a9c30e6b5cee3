"""What a pool process needs to know of the claim under which it runs a task."""

from __future__ import annotations

from typing import NamedTuple

from relier.protocol.identity import Claim

REQUEST_KEY = "relier"
"""Where a request carries its grip; it never travels in a message."""

ETA_KEY = "relier_eta"
"""Where a delivered message keeps the eta that it need not wait for, for its task to read."""


class Grip(NamedTuple):
    """A claim on its way to the process that works under it; a tuple, so that any pool carries it.

    Args:
        claim: the claim.
        delivery_tag: the message's own tag.
        outcome: the saved outcome to replay, or None to run the task.
        replays: how many processes died replaying it.
        revoked: why it is not to run ("revoked", "expired"), or "".
    """

    claim: Claim
    delivery_tag: str
    outcome: bytes | None
    replays: int
    revoked: str = ""
