"""After a restart of the server: which tasks does it take for running that nobody runs?

A server that lost its last writes has forgotten how some tasks ended: their claims are started
again, and the process that finished them is done with them.
"""

from __future__ import annotations

from collections.abc import Collection

from relier.protocol.identity import Claim


class Audit:
    """Compare what the server counts as started with what is in this process's hands.

    It begins when another run of the server answers, and ends when every claim that was started
    then has ended or gone back. A claim is given up only when two looks in turn find it idle.
    """

    def __init__(self) -> None:
        self._run_id = ""
        self._open = False
        self._unsure: set[Claim] | None = None
        self._idle: set[Claim] = set()

    @property
    def open(self) -> bool:
        """Return whether there is something to compare."""
        return self._open

    def served_by(self, run_id: str) -> None:
        """Take note of the server's run; another one than before may have forgotten."""
        if self._run_id not in ("", run_id):
            self._open, self._unsure = True, None
            self._idle.clear()
        self._run_id = run_id

    def look(self, started: Collection[Claim], in_hand: Collection[Claim]) -> set[Claim]:
        """Take in one look; return the claims to give back.

        Args:
            started: the process's claims that the server counts as started.
            in_hand: those that some process or thread of it still works under, or will.
        """
        unsure = set(started) if self._unsure is None else self._unsure & set(started)
        idle = unsure.difference(in_hand)
        lapsed = idle & self._idle
        self._unsure, self._idle = unsure - lapsed, idle - lapsed
        self._open = bool(self._unsure)
        return lapsed
