"""The variables that name a job's task: under Airflow's names, and with OpenLineage if it is active."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import context_to_airflow_vars

from airflow_jobflow.airflow_compat import lineage
from airflow_jobflow.jobs import ecs
from airflow_jobflow.jobs.attempt import Attempt
from airflow_jobflow.jobs.owner import Owner
from airflow_jobflow.operators.ecs_spec import EcsTaskSpec
from airflow_jobflow.operators.inputs import JobInputs, variables
from tests.unit.jobs.scripted_calls import ScriptedClient

PROVIDER = "airflow.providers.openlineage"


def context(logical_date: datetime | None = datetime(2026, 1, 2, 3, tzinfo=UTC)) -> Any:
    """Airflow's context, as far as it is used."""
    ti = SimpleNamespace(dag_id="etl", task_id="score", run_id="manual__1", try_number=2, map_index=-1)
    run = SimpleNamespace(run_id="manual__1", logical_date=logical_date)
    return {"ti": ti, "task_instance": ti, "dag_run": run, "task": SimpleNamespace()}


@pytest.mark.parametrize("logical_date", [datetime(2026, 1, 2, 3, tzinfo=UTC), None])
def test_the_variables_are_those_of_bash(logical_date: datetime | None) -> None:
    """A script that runs in ``BashOperator`` finds the same in a job."""
    task = context(logical_date)
    assert variables(task) == context_to_airflow_vars(task, in_env_var_format=True)


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Install a stand-in for the OpenLineage provider, which is not among the test dependencies."""

    def install(*, disabled: bool = False, **macros: Any) -> None:
        for name, members in {
            "": {},
            ".conf": {"is_disabled": lambda: disabled},
            ".plugins": {},
            ".plugins.macros": macros,
        }.items():
            module = ModuleType(f"{PROVIDER}{name}")
            module.__path__ = []
            module.__spec__ = SimpleNamespace(name=module.__name__)  # type: ignore[assignment]
            for member, value in members.items():
                setattr(module, member, value)
            monkeypatch.setitem(sys.modules, module.__name__, module)

    return install


def parent(ti: Any) -> str:
    """The macro of the provider."""
    return f"prod/{ti.dag_id}.{ti.task_id}/0191"


def test_a_job_gets_its_parent_run_if_lineage_is_active(provider: Any) -> None:
    """Dbt and other integrations read these variables; an older provider has no macro for the root."""
    provider(lineage_parent_id=parent)
    assert lineage.parent_variables(context()["ti"]) == {"OPENLINEAGE_PARENT_ID": "prod/etl.score/0191"}
    provider(lineage_parent_id=parent, lineage_root_parent_id=lambda ti: f"prod/{ti.dag_id}/0190")
    assert variables(context())["OPENLINEAGE_ROOT_PARENT_ID"] == "prod/etl/0190"


def test_there_are_no_variables_if_lineage_is_disabled_or_fails(
    provider: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Lineage never fails a job."""
    assert lineage.parent_variables(context()["ti"]) == {}
    provider(disabled=True, lineage_parent_id=parent)
    assert lineage.parent_variables(context()["ti"]) == {}
    provider(lineage_parent_id=lambda _: 1 / 0)
    with caplog.at_level(logging.WARNING):
        assert lineage.parent_variables(context()["ti"]) == {}
    assert "ZeroDivisionError" in caplog.text


def test_spark_on_glue_gets_its_parent_run_in_the_documented_argument(
    provider: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the provider's own function adds it."""
    from airflow.providers.common.compat.openlineage.utils import spark

    def inject(arguments: dict[str, Any], _: Any) -> dict[str, Any]:
        return {**arguments, "--conf": "spark.openlineage.parentRunId=1"}

    monkeypatch.setattr(spark, "inject_parent_job_information_into_glue_arguments", inject, raising=False)
    assert lineage.with_parent_of_spark({"--a": "1"}, context()) == {"--a": "1"}
    provider()
    assert lineage.with_parent_of_spark({"--a": "1"}, context()) == {
        "--a": "1",
        "--conf": "spark.openlineage.parentRunId=1",
    }


@pytest.mark.parametrize(("is_repeated", "told"), [(True, "1"), (False, "2")])
def test_a_repeated_start_sends_the_same_variables(is_repeated: bool, told: str) -> None:
    """ECS rejects a token whose request has changed, so the number of the try must not be that of the retry."""
    requests: list[dict[str, Any]] = []

    class Ecs(ScriptedClient):
        """Starts a task."""

        may_tag = False

        def describe_task_definition(self, **_: Any) -> dict[str, Any]:
            """Return one container."""
            return {"taskDefinition": {"containerDefinitions": [{"name": "main"}]}}

        def run_task(self, **request: Any) -> dict[str, Any]:
            """Run a task."""
            requests.append(request)
            return {"tasks": [{"taskArn": "a"}]}

    before = Attempt(token="token", number=1, submitted_by="t1m0c0", context={"AIRFLOW_CTX_TRY_NUMBER": "1"})
    record: Any = SimpleNamespace(
        attempt=before, is_repeated=is_repeated, durable=True, context=context(), group="g", this_try="t2m0c0",
        owner=Owner("etl", "score", "manual__1"), inputs=JobInputs(pass_context=True, result="s3://bucket/prefix"),
    )  # fmt: skip

    def new_attempt(**members: Any) -> str:
        record.attempt = Attempt(token="token", **members)
        return "token"

    record.new_attempt, record.before_submit = new_attempt, lambda _: None
    jobs: Any = SimpleNamespace(
        call=lambda function, **_: function(Ecs()),
        module=ecs,
        log=logging.getLogger("test"),
        check_containers=print,
        origin="",
    )
    values = {"cluster": "c", "task_definition": "d", "subnets": ["s"], "on_spot_interruption": "fail"}
    assert EcsTaskSpec(values).submit(record, jobs) == ["a"]
    [container] = requests[0]["overrides"]["containerOverrides"]
    given = {each["name"]: each["value"] for each in container["environment"]}
    assert (container["name"], given["AIRFLOW_CTX_TRY_NUMBER"]) == ("main", told)
    assert given["JOBFLOW_RESULT_URI"] == "s3://bucket/prefix/g/token"
    assert requests[0]["clientToken"] == "token"
