"""What runs inside a Celery worker: the transport, the execution of a task, the beat."""
