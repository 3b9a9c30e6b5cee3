"""What a user touches: the decorator, the task, its context, its receipt, the installation."""
