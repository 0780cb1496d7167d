"""Tables of parameters for the pages, from the parameter tables in the code and the docstrings of the operators.

A page has a placeholder, ``<!-- parameters: airflow_jobflow.operators.batch.BatchJobOperator -->``, that Sphinx
replaces; see ``TABLES`` for those that there are.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from airflow_jobflow.operators import batch_parameters, glue_spec
from airflow_jobflow.operators.ecs_parameters import ECS_PARAMETERS, FARGATE_PARAMETERS
from airflow_jobflow.params import ParameterTable
from airflow_jobflow.waiting import parameters

OPERATORS = "airflow_jobflow.operators"
OF_ALL = {name: row for name, row in parameters.WAIT_PARAMETERS.items() if name != "execution_timeout"}  # Airflow's
OWN = {name: row for name, row in parameters.OPERATOR_PARAMETERS.items() if name not in parameters.WAIT_PARAMETERS}
OF_MAPS = {name: row for name, row in parameters.MAP_PARAMETERS.items() if name not in parameters.OPERATOR_PARAMETERS}


@dataclass(frozen=True)
class Table:
    """A table of parameters.

    :param documented: the class whose docstring documents them.
    :param rows: the parameters.
    :param api: the API call that they are parameters of; empty for parameters of this package.
    :param has_items: whether the items of a map may set some of them.
    """

    documented: str
    rows: ParameterTable
    api: str = ""
    has_items: bool = False


TABLES = {
    "BatchJobOperator": Table(f"{OPERATORS}.batch.BatchJobOperator", batch_parameters.PARAMETERS, "SubmitJob", True),
    "EcsTaskOperator": Table(f"{OPERATORS}.ecs.EcsTaskOperator", ECS_PARAMETERS, "RunTask", True),
    "FargateTaskOperator": Table(f"{OPERATORS}.ecs.FargateTaskOperator", FARGATE_PARAMETERS, "RunTask", True),
    "GlueCrawlOperator": Table(f"{OPERATORS}.glue.GlueCrawlOperator", glue_spec.CRAWL_PARAMETERS, "StartCrawler"),
    "GlueJobRunOperator": Table(f"{OPERATORS}.glue.GlueJobRunOperator", glue_spec.RUN_PARAMETERS, "StartJobRun"),
    "all": Table(f"{OPERATORS}.base.AwsJobOperator", ParameterTable(OF_ALL)),
    "operators": Table(f"{OPERATORS}.base.AwsJobOperator", ParameterTable(OWN)),
    "maps": Table(f"{OPERATORS}.map.AwsMapOperator", ParameterTable(OF_MAPS)),
}
"""The tables, by the name in the placeholder."""

FIELD = re.compile(r"^:param (?P<names>[\w, ]+): (?P<text>.*?)(?=^:param |^$|\Z)", re.MULTILINE | re.DOTALL)
PLACEHOLDER = re.compile(r"<!-- (?P<what>parameters|item fields): (?P<table>\w+) -->")


def meanings(documented: str) -> Iterator[tuple[list[str], str]]:
    """Return what the docstring of a class says of its parameters, as Markdown: names, and the text on them.

    :param documented: the import path of the class.
    """
    module, _, name = documented.rpartition(".")
    for field in FIELD.finditer(inspect.getdoc(getattr(importlib.import_module(module), name)) or ""):
        text = " ".join(field["text"].split()).replace("``", "`")
        text = re.sub(r":(\w+):`", r"{py:\1}`", text).replace("|", "\\|")
        yield [each.strip() for each in field["names"].split(",")], text[:1].upper() + text[1:]


def as_markdown(table: Table) -> str:
    """Return a table of parameters as Markdown; a row for each field of the docstring.

    :param table: the table.
    """
    head = ["parameter", *([table.api] if table.api else []), *(["item"] if table.has_items else []), "meaning"]
    lines = [" | ".join(head), " | ".join("---" for _ in head)]
    for names, text in meanings(table.documented):
        if listed := [name for name in names if name in table.rows]:
            cells = [", ".join(f"`{name}`" for name in listed)]
            if table.api:
                cells.append(", ".join(f"`{table.rows[name].member}`" for name in listed if table.rows[name].member))
            if table.has_items:
                in_item = [name for name in listed if table.rows[name].in_item]
                cells.append("yes" if in_item == listed else ", ".join(f"`{name}`" for name in in_item))
            fixed = all(not table.rows[name].templated for name in listed)
            lines.append(" | ".join([*cells, f"{text} Not templated." if fixed else text]))
    return "\n".join(f"| {line} |" for line in lines)


def replaced(found: re.Match[str]) -> str:
    """Return what replaces a placeholder."""
    table = TABLES[found["table"]]
    if found["what"] == "parameters":
        return as_markdown(table)
    return ", ".join(f"`{name}`" for name in table.rows.item_fields)


def filled(page: str) -> str:
    """Return a page with its tables.

    :param page: the page as Markdown.
    """
    return PLACEHOLDER.sub(replaced, page)


def undocumented() -> list[Any]:
    """Return the parameters that a table has and the docstring does not document."""
    return [
        (name, parameter)
        for name, table in TABLES.items()
        for parameter in set(table.rows) - {each for names, _ in meanings(table.documented) for each in names}
    ]
