"""relier: a reliability layer for Celery on Redis."""

from __future__ import annotations

__version__ = "0.1.0"
