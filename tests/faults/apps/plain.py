"""The labour tasks as plain `@app.task`s of an app under relier, which does not protect them."""

from __future__ import annotations

import os

from celery import Celery

from faults.apps import labour
from relier import Relier

app = Celery("plain", broker=os.environ[labour.BROKER], backend=os.environ[labour.BROKER])
app.conf.task_default_queue = labour.QUEUE
Relier(app)
app.task(labour.note, name="note", shared=False)
