"""How long a task's record is kept."""

from __future__ import annotations

_HOUR_MS = 3_600_000

LIVE_RECORD_TTL_MS = 7 * 24 * _HOUR_MS
"""Beyond the due time, renewed by each move. A message without a record still runs."""

ENDED_RECORD_TTL_MS = _HOUR_MS
"""After the end: as long as a late copy of the message is still recognised."""
