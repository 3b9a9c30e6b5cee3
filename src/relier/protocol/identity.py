"""Who a message is: its task, its place in the task's life, and the token of its publish.

A task id names a life; ``retry()`` and ``replace()`` publish the same id again, so a publish is
told apart by its generation, and a repeated publish is recognised by its token, which is minted
once, before any retry loop.
"""

from __future__ import annotations

import hashlib
import os
import re
from base64 import b32encode, b64encode
from collections.abc import Mapping
from typing import Any, NamedTuple

TOKEN_HEADER = "rl_token"
_NESTING = 2**32
_TOKEN = re.compile(r"[\w:.-]{1,64}", re.ASCII)
"""Scripts put tokens between bars; what does not look like one is hashed."""


class Claim(NamedTuple):
    """The right of one worker process to one delivered message, until the server says otherwise."""

    worker: str
    queue: str
    number: str

    @property
    def tag(self) -> str:
        """Return the text that names the claim within its process."""
        return f"{self.number}@{self.queue}"


class Identity(NamedTuple):
    """What a message says about itself."""

    task_id: str
    token: str
    generation: int
    name: str


def mint_token() -> str:
    """Return a token that no other publish has (128 random bits, in 22 characters).

    A record keeps it twice. The alphabet leaves out the dash, by which derived tokens are known.
    """
    return b64encode(os.urandom(16), b"._")[:22].decode()


def mint_worker_id() -> str:
    """Return a worker id that no other process has or will have (80 random bits, 16 letters)."""
    return b32encode(os.urandom(10)).decode().lower()


def generation(headers: Mapping[str, Any]) -> int:
    """Return a message's place in its life: replacements first, then retries."""
    return int(headers.get("replaced_task_nesting") or 0) * _NESTING + int(
        headers.get("retries") or 0
    )


def identify(headers: Mapping[str, Any], delivery_tag: str) -> Identity:
    """Read a task message's identity.

    Args:
        headers: the headers of a protocol 2 message; ``task`` and ``id`` must be there.
        delivery_tag: stands in for the token of a stock producer: a copy that a stock worker
            puts back keeps it.
    """
    token = str(headers.get(TOKEN_HEADER) or f"d:{delivery_tag}")
    if not _TOKEN.fullmatch(token):
        token = f"h:{hashlib.sha256(token.encode('utf-8', 'replace')).hexdigest()[:32]}"
    return Identity(str(headers["id"]), token, generation(headers), str(headers["task"]))


def derive(root: str, task_id: str, generation: int, index: int | str) -> str:
    """Return the token or id of what a task publishes as a consequence.

    The same parent in the same life always derives the same value, so a consequence that is sent
    again after a crash is recognised.

    Args:
        root: the root token of the parent's life.
        task_id: the parent.
        generation: the parent's generation.
        index: which of its consequences.
    """
    text = f"{root}\x00{task_id}\x00{generation}\x00{index}"
    return hashlib.sha256(text.encode()).hexdigest()[:32]
