"""Airflow imports this file. It gives jobs the environment variables that the image of a dbt project would define."""

import json
import os
from typing import Any


def task_policy(task: Any) -> None:
    """Change a task when its DAG is parsed."""
    if task.task_type == "BatchJobOperator":
        task.environment = json.loads(os.environ["IMAGE_ENVIRONMENT"])
        task.retries = 0
