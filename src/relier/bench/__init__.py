"""Measure relier beside vanilla Celery, in one run on one machine."""
