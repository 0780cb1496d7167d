"""The OpenLineage parent run of a task's job, as OpenLineage's provider determines it.

Relies on the provider's documented macros, and on ``conf.is_disabled`` (provider 2.19, which is not among the
dependencies; tried with a stand-in on Airflow 3.3.2).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)

PROVIDER = "airflow.providers.openlineage"

MACROS = {"OPENLINEAGE_PARENT_ID": "lineage_parent_id", "OPENLINEAGE_ROOT_PARENT_ID": "lineage_root_parent_id"}
"""The macro for each variable that OpenLineage's integrations read."""


def parent_variables(ti: Any) -> dict[str, str]:
    """Return the variables that make a task the parent of its job's runs; empty if OpenLineage is not active.

    :param ti: the task instance.
    """
    if not _is_active():
        return {}
    macros = import_module(f"{PROVIDER}.plugins.macros")
    known = {name: getattr(macros, macro) for name, macro in MACROS.items() if hasattr(macros, macro)}
    try:
        return {name: str(macro(ti)) for name, macro in known.items()}
    except Exception as error:  # noqa: BLE001 -- lineage never fails a job, whatever it lacks
        log.warning("The job gets no OpenLineage parent run: %r", error)
        return {}


def with_parent_of_spark(arguments: Mapping[str, Any], context: Context) -> dict[str, Any]:
    """Return a Glue run's arguments with the OpenLineage properties that make the task the parent of its Spark job.

    :param arguments: the arguments; ``--conf`` is extended, unless it names a parent.
    :param context: Airflow's context.
    """
    if not _is_active():
        return dict(arguments)
    spark = import_module("airflow.providers.common.compat.openlineage.utils.spark")
    try:
        return dict(spark.inject_parent_job_information_into_glue_arguments(dict(arguments), context))
    except Exception as error:  # noqa: BLE001 -- lineage never fails a job; older releases lack the function
        log.warning("The Glue job run gets no OpenLineage parent run: %r", error)
        return dict(arguments)


def _is_active() -> bool:
    """Return whether the provider is installed and not disabled."""
    try:
        return find_spec(PROVIDER) is not None and not import_module(f"{PROVIDER}.conf").is_disabled()
    except Exception as error:  # noqa: BLE001 -- a provider that does not work is not active
        log.warning("The OpenLineage provider cannot be used: %r", error)
        return False
