"""The bench's coroutines, which vanilla Celery does not run."""

from __future__ import annotations

import asyncio
from typing import Any

from relier.bench.workload import SIGN_S, note, note_start


async def aoutstay(task: Any) -> None:
    """Run until cancelled."""
    note_start(task)
    while True:
        note("alive", task.request.id)
        await asyncio.sleep(SIGN_S)


async def outstay_stubbornly(task: Any) -> None:
    """Run on when cancelled."""
    note_start(task)
    while True:
        try:
            note("alive", task.request.id)
            await asyncio.sleep(SIGN_S)
        except asyncio.CancelledError:
            continue
