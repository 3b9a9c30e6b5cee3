"""Messages as a stock producer's kombu writes them into a list."""

from __future__ import annotations

import base64
import json
from typing import Any


def stock_message(queue: str, task_id: str, *args: Any, tag: str = "", **headers: Any) -> str:
    """Make a task message.

    Args:
        queue: where it goes.
        task_id: its id.
        args: the task's arguments.
        tag: its delivery tag; default: one of its own.
        headers: `task` and what else Celery writes.
    """
    body = base64.b64encode(json.dumps([args, {}, {}]).encode()).decode()
    return json.dumps(
        {
            "body": body,
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {"lang": "py", "id": task_id, **headers},
            "properties": {
                "correlation_id": task_id,
                "delivery_tag": tag or f"tag of {task_id}",
                "delivery_info": {"exchange": "", "routing_key": queue},
                "body_encoding": "base64",
            },
        }
    )
