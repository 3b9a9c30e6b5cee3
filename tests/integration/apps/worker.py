"""The kitchen for `celery -A integration.apps.worker`."""

from __future__ import annotations

import os

from integration.apps.kitchen import make_app

app = make_app(
    os.environ["BROKER"],
    os.environ.get("BACKEND"),
    protect_all=os.environ.get("PROTECT_ALL") == "1",
)
