"""Decorators of Python functions that run as jobs: ``@task.batch``, ``@task.fargate``, and their maps."""
