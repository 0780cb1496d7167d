"""The page for people who switch from the Amazon provider names all that its classes have."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any, Final

import pytest
from airflow.providers.amazon.aws.operators import batch, ecs, glue, glue_crawler
from airflow.providers.amazon.aws.sensors import batch as batch_sensors
from airflow.providers.amazon.aws.sensors import ecs as ecs_sensors
from airflow.providers.amazon.aws.sensors import glue as glue_sensors
from airflow.providers.amazon.aws.sensors import glue_catalog_partition
from airflow.providers.amazon.aws.sensors import glue_crawler as crawler_sensors

PAGE: Final = (Path(__file__).parents[2] / "docs" / "amazon-provider.md").read_text()
MODULES: Final = (batch, ecs, glue, glue_crawler, batch_sensors, ecs_sensors, glue_sensors, crawler_sensors)
COUNTERPARTS: Final = (
    batch.BatchOperator,
    ecs.EcsRunTaskOperator,
    glue.GlueJobOperator,
    glue_crawler.GlueCrawlerRunOperator,
    batch_sensors.BatchSensor,
    ecs_sensors.EcsTaskStateSensor,
    glue_sensors.GlueJobSensor,
    crawler_sensors.GlueCrawlerSensor,
)


def classes() -> list[type]:
    """Return the public operators and sensors of the Amazon provider for Batch, ECS and Glue."""
    found = [
        each
        for module in (*MODULES, glue_catalog_partition)
        for name, each in vars(module).items()
        if inspect.isclass(each) and each.__module__ == module.__name__ and not re.match("_|EcsBase", name)
    ]
    assert len(found) > 20
    return found


def section(kind: type) -> str:
    """Return the section of the page about a class."""
    found = re.search(rf"^## [^\n]*\b{kind.__name__}\b.*?(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, f"no section about {kind.__name__}"
    return found[0]


@pytest.mark.parametrize("kind", COUNTERPARTS, ids=lambda kind: kind.__name__)
def test_every_parameter_of_a_class_is_on_the_page(kind: Any) -> None:
    """A reader looks for what the DAG uses now."""
    own = set(inspect.signature(kind.__init__).parameters) - {"self", "kwargs"}
    everywhere = {"aws_conn_id", "region_name", "verify", "botocore_config"}
    assert {name for name in own - everywhere if f"`{name}" not in section(kind)} == set()


@pytest.mark.parametrize("kind", classes(), ids=lambda kind: kind.__name__)
def test_every_class_is_on_the_page(kind: type) -> None:
    """One without a counterpart has a row that says why, unless it is the sensor of such a class."""
    named = kind.__name__.replace("RunSensor", "RunOperator") if "DataQuality" in kind.__name__ else kind.__name__
    assert named in PAGE


def test_no_row_is_empty() -> None:
    """A row that says ``none`` says why."""
    without_reason = [line for line in PAGE.splitlines() if re.search(r"\| (none|not needed)\W*\|", line)]
    assert without_reason == []
