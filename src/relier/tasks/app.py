"""A ready Celery app for who has none: ``celery -A relier.tasks.app worker --include=tasks``."""

from __future__ import annotations

from celery import Celery

from relier.tasks.install import Relier

app = Celery("relier")
app.conf.task_default_queue = "default"
relier = Relier(app)
app.set_default()
