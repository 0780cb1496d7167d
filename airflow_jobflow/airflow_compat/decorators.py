"""What the decorators of tasks are made with.

Airflow documents this module in "Creating Custom @task Decorators", but not among its public interfaces. Checked with
3.2.1 and 3.3.2.
"""

from __future__ import annotations

from airflow.sdk.bases.decorator import DecoratedOperator, Task, TaskDecorator, task_decorator_factory
from airflow.sdk.definitions.context import KNOWN_CONTEXT_KEYS

__all__ = ["KNOWN_CONTEXT_KEYS", "DecoratedOperator", "Task", "TaskDecorator", "task_decorator_factory"]
