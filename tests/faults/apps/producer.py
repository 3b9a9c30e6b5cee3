"""Dispatch what standard input says, in a process of its own; print the ids."""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from faults.apps import labour


def dispatch(app: Any, task: str, word: str, how: dict[str, Any]) -> str:
    """Dispatch one call, by `push` if there are no options."""
    options = dict(how)
    if "expires_at" in options:
        options["expires"] = datetime.now(UTC) + timedelta(seconds=options.pop("expires_at"))
    if options:
        return str(app.tasks[task].apply_async((word,), **options).id)
    return str(app.tasks[task].push(word).id)


if __name__ == "__main__":
    made = labour.build(sys.argv[1])
    calls = json.load(sys.stdin)
    print(json.dumps([time.time(), *(dispatch(made, *call) for call in calls)]))
