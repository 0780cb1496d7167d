"""Decide whether a task can do without a worker: whether it may start, and end, in the triggerer.

A worker process is the most expensive part of a wait, so one runs only for what needs one. A task that ends in the
triggerer loses what Airflow does only on workers; a task that starts there also loses what Airflow does on the way to a
worker. So both need a task whose every feature is on a list of features that work in the triggerer. What is not on a
list, such as a feature of a newer Airflow, gets a worker, and is not lost.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from airflow.sdk import BaseSensorOperator, conf

from airflow_jobflow.airflow_compat.features import dag_in, features_in_use, feeds_mapped_task, has_listeners

IN_SCHEDULER: Final = frozenset(
    {
        "task_id", "dag", "_dag", "task_group", "default_args", "params", "owner", "task_type", "start_date",
        "end_date", "trigger_rule", "depends_on_past", "ignore_first_depends_on_past",
        "wait_for_past_depends_before_skipping", "wait_for_downstream", "downstream_task_ids", "is_setup",
        "is_teardown", "on_failure_fail_dagrun", "priority_weight", "weight_rule", "retries", "retry_delay",
        "retry_exponential_backoff", "max_retry_delay", "execution_timeout", "start_from_trigger",
        "start_trigger_args", "_needs_expansion",
    }
)  # fmt: skip
"""Features that Airflow handles before a task starts or between its tries, and the trigger's own deadline."""

AFTER_FAILURE: Final = frozenset(
    {
        "on_failure_callback", "has_on_failure_callback", "on_retry_callback", "has_on_retry_callback",
        "on_skipped_callback", "has_on_skipped_callback", "email", "email_on_failure", "email_on_retry",
        "retry_policy", "has_retry_policy", "sla",
    }
)  # fmt: skip
"""Features that take effect when a task fails, is retried or is skipped. The triggerer never ends such a task."""

SELECTS_WORKER: Final = frozenset({"queue", "pool_slots", "executor", "executor_config", "run_as_user", "resources"})
"""Features that say which worker runs a task. An operator submits jobs with the credentials of that worker."""

OF_WORKERS: Final = SELECTS_WORKER | {
    "_lock_for_execution", "allow_nested_operators", "logger_name", "_logger_name", "_log_config_logger_name",
    "overwrite_rtif_after_execution", "shallow_copy_attrs",
}  # fmt: skip
"""Features that say where and how a worker runs. They mean nothing where no worker runs."""

OF_THE_UI: Final = frozenset(
    {"doc", "doc_md", "doc_json", "doc_yaml", "doc_rst", "task_display_name", "_task_display_name", "ui_color",
     "ui_fgcolor", "operator_extra_links"}
)  # fmt: skip
"""Features that the UI shows."""

HONOURED_HERE: Final = frozenset(
    {"do_xcom_push", "template_fields", "template_ext", "template_fields_renderers", "mode", "poke_interval", "timeout",
     "soft_fail", "never_fail", "exponential_backoff", "max_wait", "silent_fail"}
)  # fmt: skip
"""Features that this package's triggers honour themselves, or whose use its sensors reject."""

_ANYWHERE: Final = IN_SCHEDULER | AFTER_FAILURE | OF_WORKERS | OF_THE_UI | HONOURED_HERE

MAY_END_WITH: Final = _ANYWHERE | {
    "inlets",
    "pool",
    "max_active_tis_per_dag",
    "max_active_tis_per_dagrun",
    "render_template_as_native_obj",
}
"""Features that a task may have and end in the triggerer. These five take effect before a worker has deferred it.

``outlets``, ``map_index_template``, ``multiple_outputs``, ``returns_dag_result``, ``on_success_callback`` and
``on_execute_callback`` are not here, nor are the hooks around ``execute``: they take effect on the worker that ends it.
"""

MAY_START_WITH: Final = _ANYWHERE | {
    "outlets",
    "map_index_template",
    "on_success_callback",
    "has_on_success_callback",
}
"""Features that a task may have and start in the triggerer. These four take effect at its end, for which a worker runs.

``pool`` is not here, nor are ``max_active_tis_per_dag`` and ``max_active_tis_per_dagrun``: Airflow does not apply these
limits to such a start. ``inlets`` and ``render_template_as_native_obj`` are not here, because a worker resolves them.
"""

MAX_VALUES: Final = 10_000
"""The most values in the parameters of a task that starts in the triggerer, which decodes them on its event loop."""

START_SETTINGS: Final = ("sensors", "all", "none")
"""The values of ``[jobflow] start_from_trigger``: what starts in the triggerer if the task itself does not say."""

RENDERED: Final = {
    "run_id", "params", "dag_run", "var", "conn", "ds", "ds_nodash", "ts", "ts_nodash", "logical_date",
    "data_interval_start", "data_interval_end", "macros", "dag", "task", "ti", "task_instance",
}  # fmt: skip
"""Names that a template may use, and that have the same value in the triggerer as on a worker."""

CONSTANT_MACROS: Final = {"ds_add", "ds_format", "ds_format_locale", "json", "timedelta", "yaml"}
"""Macros that a template may use. Others, such as ``macros.uuid``, return something else to a trigger that replaces
another one, and that would then not find its job by the name."""

OF_TASK_INSTANCE: Final = {"dag_id", "task_id", "run_id", "map_index", "try_number", "xcom_pull"}
"""Attributes of ``ti`` that a template may use; for ``xcom_pull``, see ``renderable``."""


def end_setting() -> str:
    """Return ``[jobflow] end_in_trigger``: ``auto`` or ``never``."""
    return str(conf.get("jobflow", "end_in_trigger"))


def start_setting() -> str:
    """Return ``[jobflow] start_from_trigger``, one of ``START_SETTINGS`` unless it is wrong."""
    return str(conf.get("jobflow", "start_from_trigger"))


def may_end(task: Any, *, is_mapped: bool) -> bool:
    """Return whether a task loses nothing if it ends successfully in the triggerer.

    Blocks the first time, because it loads Airflow's plugins: not for an event loop.

    :param task: the operator, or the task as Airflow has serialized it.
    :param is_mapped: whether this is one of the instances of a mapped task. If not, and another task is mapped over its
        result, only a worker records the length of the result.
    """
    return (
        end_setting() != "never"
        and not features_in_use(task, besides=MAY_END_WITH)
        and (is_mapped or not feeds_mapped_task(task))
        and not (_keeps_state(task) and conf.getboolean("state_store", "clear_on_success", fallback=False))
        and not has_listeners()
    )


def why_not_start(task_class: type, given: Mapping[str, Any], arguments: Mapping[str, Any]) -> str:
    """Return why a task would lose something if it started in the triggerer; empty if it loses nothing.

    A start in the triggerer does not count against the limits of the task's pool. Airflow gives its trigger no queue,
    so where triggerers have queues, no triggerer might run it.

    :param task_class: the class of the operator or sensor.
    :param given: its parameters or its attributes, by name.
    :param arguments: those of them that the triggerer makes the task of.
    """
    return next(_reasons_for_worker(task_class, given, arguments), "")


def _reasons_for_worker(task_class: type, given: Mapping[str, Any], arguments: Mapping[str, Any]) -> Iterator[str]:
    if not is_ours(task_class):
        yield f"{task_class.__name__} is derived from a class of this package, and its methods may need a worker"
    if used := used_on_way_to_worker(task_class, given):
        yield used
    dag = dag_in(given)
    if _customizes_rendering(dag):
        yield "its DAG customizes how templates are rendered, which Airflow does not pass on to the triggerer"
    if conf.getboolean("triggerer", "queues_enabled", fallback=False):
        yield "triggerers have queues ([triggerer] queues_enabled), and a start in the triggerer has none"
    natively = bool(dag and dag.render_template_as_native_obj)
    if wrong := [name for name, value in arguments.items() if not renderable(value, natively=natively)]:
        yield f"only a worker can render {', '.join(wrong)}"
    if _count(arguments, MAX_VALUES) > MAX_VALUES:
        yield f"its parameters have more than {MAX_VALUES:,} values"


def used_on_way_to_worker(task_class: type, task: Any) -> str:
    """Return which features of a task a start in the triggerer would ignore, as a reason; empty for none.

    :param task_class: the class of the operator or sensor.
    :param task: its parameters or its attributes, by name, or the task as Airflow has serialized it.
    """
    allowed = MAY_START_WITH if issubclass(task_class, BaseSensorOperator) else MAY_START_WITH - SELECTS_WORKER
    used = ", ".join(sorted(features_in_use(task, besides=allowed)))
    return used and f"the task uses {used}, which Airflow supports only for starts on a worker"


def _count(value: object, most: int) -> int:
    """Return how many values a parameter has, in all of its lists and dicts; it stops to count above a limit."""
    if not isinstance(value, Mapping | list | tuple):
        return 1
    count = 0
    for each in value.values() if isinstance(value, Mapping) else value:
        count += _count(each, most - count)
        if count > most:
            break
    return count


def is_ours(task_class: type) -> bool:
    """Return whether a class belongs to this package. A class derived from it may do anything in its methods.

    :param task_class: the class of a task.
    """
    return task_class.__module__.startswith(f"{__package__}.")


def renderable(value: object, *, natively: bool = False) -> bool:
    """Return whether Airflow renders a value in the triggerer as it does on a worker, and each time to the same.

    Rendering does not change a value without a template. In the triggerer an XComArg is not resolved, an ``xcom_pull``
    without ``map_indexes`` never returns, and every template renders to a string.

    :param value: the value of a parameter.
    :param natively: whether the DAG has ``render_template_as_native_obj``. Default False.
    """
    if isinstance(value, str):
        return "{" not in value or (not natively and _template_renderable(value))
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and renderable(each, natively=natively) for key, each in value.items())
    if isinstance(value, list | tuple):
        return all(renderable(each, natively=natively) for each in value)
    return value is None or isinstance(value, bool | int | float | timedelta | datetime)


def has_template(value: object) -> bool:
    """Return whether rendering may change a value that is ``renderable``.

    :param value: the value of a parameter.
    """
    if isinstance(value, Mapping):
        return any(map(has_template, value.values()))
    if isinstance(value, list | tuple):
        return any(map(has_template, value))
    return isinstance(value, str) and "{" in value


def _template_renderable(template: str) -> bool:
    from jinja2 import Environment, TemplateSyntaxError, meta, nodes

    try:
        tree = Environment(autoescape=True).parse(template)
        names = meta.find_undeclared_variables(tree)
    except TemplateSyntaxError:
        return False  # a worker knows more filters, or reports the error
    instances = [name for name in tree.find_all(nodes.Name) if name.name in ("ti", "task_instance")]
    attributes = [each for each in tree.find_all(nodes.Getattr) if each.node in instances]
    macros = [name for name in tree.find_all(nodes.Name) if name.name == "macros"]
    constant = [each for each in tree.find_all(nodes.Getattr) if each.node in macros and each.attr in CONSTANT_MACROS]
    pulls = [each for each in tree.find_all(nodes.Getattr) if each.attr == "xcom_pull"]
    complete_pulls = [
        call
        for call in tree.find_all(nodes.Call)
        if call.node in pulls and any(keyword.key == "map_indexes" for keyword in call.kwargs)
    ]
    return (
        names <= RENDERED
        and len(attributes) == len(instances)
        and all(each.attr in OF_TASK_INSTANCE for each in attributes)
        and len(complete_pulls) == len(pulls)
        and len(constant) == len(macros)
        and not any(each.name == "random" for each in tree.find_all(nodes.Filter))
    )


def _keeps_state(task: object) -> bool:
    """Return whether a task keeps a record of its job in Airflow's task state store, as the operators do."""
    return hasattr(task, "durable")


def _customizes_rendering(dag: Any) -> bool:
    """Return whether a DAG renders templates by rules that Airflow does not serialize.

    A macro or a filter of a new name needs no check here: ``renderable`` finds it in the template.
    """
    from jinja2 import StrictUndefined
    from jinja2.filters import FILTERS

    return dag is not None and bool(
        dag.jinja_environment_kwargs
        or dag.template_undefined is not StrictUndefined
        or FILTERS.keys() & set(dag.user_defined_filters or ())
        or RENDERED & set(dag.user_defined_macros or ())
    )
