"""The orphan reaper against the local AWS, with a scripted Airflow: which jobs it stops, and which never."""

from __future__ import annotations

import contextlib
import logging
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from airflow.sdk.exceptions import TaskDeferred

from airflow_jobflow.jobs import glue_run, listing
from airflow_jobflow.jobs.owner import ARGUMENT, Owner, attempt_token, tag_value
from airflow_jobflow.local import Faults, LocalAws, Settings
from airflow_jobflow.local.samples import create_environment
from airflow_jobflow.operators.batch import BatchJobOperator
from airflow_jobflow.operators.ecs import FargateTaskOperator
from airflow_jobflow.operators.glue import GlueJobRunOperator
from airflow_jobflow.reaper import stop_orphans
from tests.local.conftest import EcsKit, Kit, eventually
from tests.local.glue_kit import SLEEP, GlueKit

LASTS = "sleep 600"
ELEVEN_MINUTES = 660.0
PRODUCTION = "production"
UNFINISHED = [None, "scheduled", "queued", "running", "restarting", "up_for_retry", "up_for_reschedule", "deferred"]
FINISHED = ["success", "failed", "skipped", "upstream_failed", "removed"]


class Airflow:
    """Has the states of task instances, and records each query together with the earlier AWS calls."""

    def __init__(self, aws: LocalAws) -> None:
        self._aws = aws
        self.instances: dict[tuple[str, str, str, int], str | None] = {}
        self.asked: list[Counter[str]] = []

    def has(self, owner: Owner, state: str | None) -> None:
        """Set the state of an owner's task instance."""
        self.instances[owner.task_instance] = state

    def __call__(
        self, dag_id: str, task_ids: Sequence[str], run_ids: Sequence[str]
    ) -> Mapping[str, Mapping[str, str | None]]:
        """Answer as Airflow's API does: unknown runs are left out."""
        self.asked.append(self._aws.calls)
        answer: dict[str, dict[str, str | None]] = {}
        for (dag, task, run, index), state in self.instances.items():
            if dag == dag_id and task in task_ids and run in run_ids:
                answer.setdefault(run, {})[task if index < 0 else f"{task}_{index}"] = state
        return answer


class Script:
    """Makes calls that a function answers instead of AWS."""

    may_tag, region, partition, valid_until = False, "us-east-1", "aws", float("inf")

    @property
    def memory(self) -> dict[Any, Any]:
        """Nothing is remembered."""
        return {}

    def wait_for_turn(self) -> None:
        """No rate is limited."""

    def __init__(self, answer: Callable[..., Any]) -> None:
        self._answer = answer

    def __call__(self, operation: str, **parameters: Any) -> Any:
        """Answer a call."""
        return self._answer(operation, **parameters)


class Jobs:
    """Starts jobs as the operators do, and reports which still run."""

    def __init__(self, aws: LocalAws) -> None:
        self.batch = Kit(aws, aws.client("batch"))
        self.ecs = EcsKit(aws)
        self.glue = GlueKit(aws, eventually)
        self.glue_job = self.glue.job(SLEEP, ExecutionProperty={"MaxConcurrentRuns": 50})
        self.definition = self.batch.define(["sh", "-c", LASTS])
        self.task_definition = self.ecs.define(self.ecs.container(["sh", "-c", LASTS]))

    @staticmethod
    def name(owner: Owner, suffix: str = "") -> str:
        """Return the name of an owner's Batch job."""
        return f"job-{owner.group}-t1m0c0-{attempt_token('ti', 1)}{suffix}"

    def submit(self, owner: Owner | None, **request: Any) -> str:
        """Submit a Batch job."""
        own: dict[str, Any] = {"jobName": self.name(owner), "tags": owner.tags()} if owner else {}
        return self.batch.submit(**{"jobDefinition": self.definition, **own, **request})

    def run(self, owner: Owner | None, **request: Any) -> str:
        """Run an ECS task."""
        tags = [{"key": key, "value": value} for key, value in owner.tags().items()] if owner else []
        own: dict[str, Any] = {"startedBy": owner.group} if owner else {}
        return self.ecs.run(**{"taskDefinition": self.task_definition, "tags": tags, **own, **request})

    def start(self, owner: Owner | None, **arguments: str) -> str:
        """Start a Glue run."""
        own = {ARGUMENT: owner.argument(attempt=attempt_token("ti", 1))} if owner else {}
        return self.glue.start(self.glue_job, Arguments={**own, **arguments})

    def start_everywhere(self, owner: Owner | None) -> list[str]:
        """Start a job on each service, and return their ids."""
        return [self.submit(owner), self.run(owner), self.start(owner)]

    @property
    def locations(self) -> dict[str, Any]:
        """Return the locations of the jobs, as arguments of the reaper."""
        return {"job_queues": [self.batch.queue], "clusters": [self.ecs.cluster], "glue_jobs": [self.glue_job]}

    def stopped(self) -> set[str]:
        """Return the ids of stopped jobs."""
        batch, ecs, glue = self.batch.batch, self.ecs, self.glue.glue
        listed = [
            job["jobId"] for job in batch.list_jobs(jobQueue=self.batch.queue, jobStatus="FAILED")["jobSummaryList"]
        ]
        described = batch.describe_jobs(jobs=listed)["jobs"] if listed else []
        runs = glue.get_job_runs(JobName=self.glue_job)["JobRuns"]
        return {
            *(job["jobId"] for job in described if job.get("isTerminated") or job.get("isCancelled")),
            *ecs.listed(desiredStatus="STOPPED"),
            *(run["Id"] for run in runs if run["JobRunState"] in ("STOPPING", "STOPPED")),
        }

    def are_stopped(self, ids: Sequence[str]) -> None:
        """Wait until these jobs are stopped, and check that no other job is."""
        eventually(lambda: self.stopped() >= set(ids), f"the stop of {ids}")
        assert self.stopped() == set(ids)


@pytest.fixture(scope="module")
def account() -> Iterator[LocalAws]:
    """An AWS with enough capacity for the jobs of a test."""
    with LocalAws(slots=16, settings=Settings(time_scale=0.01, stop_grace=5)) as aws:
        create_environment(aws.client("iam"), aws.client("batch"), "local")
        yield aws


@pytest.fixture
def jobs(account: LocalAws, here: Callable[[LocalAws], None]) -> Iterator[Jobs]:
    """The test's own queue, cluster and Glue job."""
    here(account)
    started = Jobs(account)
    yield started
    account.set_faults(Faults())
    for status in listing.BATCH_UNFINISHED:
        for job in started.batch.batch.list_jobs(jobQueue=started.batch.queue, jobStatus=status)["jobSummaryList"]:
            started.batch.batch.terminate_job(jobId=job["jobId"], reason="the test is over")
    for task in started.ecs.listed(desiredStatus="RUNNING"):
        started.ecs.ecs.stop_task(cluster=started.ecs.cluster, task=task)
    started.glue.close()


@pytest.fixture
def airflow(account: LocalAws) -> Airflow:
    """An Airflow that knows no task instance yet."""
    return Airflow(account)


@pytest.fixture
def owner(monkeypatch: pytest.MonkeyPatch) -> Owner:
    """A task instance of the deployment of this process."""
    monkeypatch.setenv("AIRFLOW__JOBFLOW__DEPLOYMENT_ID", PRODUCTION)
    return Owner("etl", "load", f"manual__{uuid.uuid4()}", deployment=PRODUCTION)


def reap(jobs: Jobs, airflow: Airflow, **more: Any) -> dict[str, Any]:
    """Run the reaper without dry run, as if eleven minutes had passed."""
    return stop_orphans(
        **{**jobs.locations, "dry_run": False, "states": airflow, "now": lambda: time.time() + ELEVEN_MINUTES, **more}
    )


def test_jobs_whose_task_has_ended_are_stopped(
    jobs: Jobs, airflow: Airflow, owner: Owner, caplog: pytest.LogCaptureFixture
) -> None:
    """This holds for every service, and for no other jobs. The log names them."""
    caplog.set_level(logging.INFO, "airflow_jobflow.reaper")
    airflow.has(owner, "failed")
    alive = replace(owner, task_id="alive")
    airflow.has(alive, "running")
    orphans = jobs.start_everywhere(owner)
    jobs.start_everywhere(alive)
    report = reap(jobs, airflow)
    jobs.are_stopped(orphans)
    assert not report["dry_run"]
    assert [(job["service"], job["job_id"], job["action"], job["state"]) for job in report["jobs"]] == [
        (service, job_id, "stopped", "failed")
        for service, job_id in zip(("batch", "ecs", "glue_run"), orphans, strict=True)
    ]
    assert {name: count for name, count in report["counts"].items() if count} == {
        "listed": 6,
        "task_finished": 3,
        "task_unfinished": 3,
        "stopped": 3,
    }
    assert report["problems"] == []
    assert all(
        f"Stopped {kind} {job_id} (" in caplog.text
        for kind, job_id in zip(("Batch job", "ECS task", "Glue job run"), orphans, strict=True)
    )
    assert f"its task has ended. Task: etl.load of run {owner.run_id}, state: failed." in caplog.text
    [stopped] = jobs.batch.batch.describe_jobs(jobs=[orphans[0]])["jobs"]
    assert stopped["statusReason"].startswith("Orphan: its task has ended (etl.load of run ")


def test_states_are_queried_after_all_listings_and_before_all_stops(
    jobs: Jobs, airflow: Airflow, owner: Owner, account: LocalAws
) -> None:
    """Otherwise a job that was started after its task's state was read would look like an orphan."""
    other = replace(owner, dag_id="other")
    for each in (owner, other):
        airflow.has(each, "success")
        jobs.start_everywhere(each)
    before = account.calls
    reap(jobs, airflow)
    first, second = (asked - before for asked in airflow.asked)
    assert first == second
    assert {name for name in first if "Stop" in name or "Terminate" in name} == set()
    assert first["batch.ListJobs"] == 5
    assert (first["batch.DescribeJobs"], first["ecs.ListTasks"], first["ecs.DescribeTasks"]) == (1, 1, 1)
    assert first["glue.GetJobRuns"] == 1
    assert account.calls - before - first == Counter(
        {"batch.TerminateJob": 2, "ecs.StopTask": 2, "glue.BatchStopJobRun": 2}
    )


@pytest.mark.parametrize("state", [*UNFINISHED, "a_state_of_airflow_4"])
def test_a_job_whose_task_may_continue_is_left_alone(
    jobs: Jobs, airflow: Airflow, owner: Owner, state: str | None
) -> None:
    """This holds for every unfinished state."""
    airflow.has(owner, state)
    jobs.submit(owner)
    report = reap(jobs, airflow, reap_deleted_runs=True)
    assert report["counts"]["task_unfinished"] == 1
    assert jobs.stopped() == set()


@pytest.mark.parametrize("state", FINISHED)
def test_a_job_is_stopped_in_every_final_state_of_its_task(
    jobs: Jobs, airflow: Airflow, owner: Owner, state: str
) -> None:
    """This includes tasks that were marked by a user, skipped, or removed from the DAG."""
    airflow.has(owner, state)
    job_id = jobs.submit(owner)
    assert reap(jobs, airflow)["counts"]["stopped"] == 1
    jobs.are_stopped([job_id])


def test_a_dry_run_stops_nothing_and_reports_what_it_would_stop(
    jobs: Jobs, airflow: Airflow, owner: Owner, caplog: pytest.LogCaptureFixture
) -> None:
    """A dry run is the default."""
    caplog.set_level(logging.INFO, "airflow_jobflow.reaper")
    airflow.has(owner, "failed")
    ids = jobs.start_everywhere(owner)
    report = stop_orphans(**jobs.locations, states=airflow, now=lambda: time.time() + ELEVEN_MINUTES)
    assert report["dry_run"]
    assert [(job["job_id"], job["action"]) for job in report["jobs"]] == [(each, "would_stop") for each in ids]
    assert caplog.text.count("Would stop") == 3
    assert jobs.stopped() == set()


def test_without_a_deployment_id_nothing_is_stopped(
    jobs: Jobs, airflow: Airflow, owner: Owner, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Other arguments do not matter. Jobs without a deployment id are reported, those of other deployments are not."""
    monkeypatch.delenv("AIRFLOW__JOBFLOW__DEPLOYMENT_ID")
    nameless = replace(owner, deployment="")
    for each in (owner, nameless):
        airflow.has(each, "failed")
    jobs.submit(owner)
    mine = jobs.submit(nameless)
    report = reap(jobs, airflow)
    assert report["dry_run"]
    assert [(job["job_id"], job["action"]) for job in report["jobs"]] == [(mine, "would_stop")]
    assert report["counts"]["other_deployment"] == 1
    assert "deployment_id is not set" in caplog.text
    assert jobs.stopped() == set()


def test_two_deployments_in_one_account_leave_each_others_jobs_alone(
    jobs: Jobs, airflow: Airflow, owner: Owner
) -> None:
    """They have the same DAGs, tasks and run ids, and the task has ended in only one of them."""
    staging = replace(owner, deployment="staging")
    airflow.has(owner, "failed")
    mine, theirs = jobs.start_everywhere(owner), jobs.start_everywhere(staging)
    report = reap(jobs, airflow)
    jobs.are_stopped(mine)
    assert report["counts"]["other_deployment"] == 3
    there = Airflow(jobs.batch.aws)
    there.has(owner, "running")
    assert reap(jobs, there, deployment_id="staging")["counts"]["stopped"] == 0
    jobs.are_stopped(mine)
    there.has(owner, "failed")
    assert reap(jobs, there, deployment_id="staging")["counts"]["stopped"] == 3
    jobs.are_stopped(mine + theirs)


def test_unmarked_jobs_are_left_alone(jobs: Jobs, airflow: Airflow, owner: Owner) -> None:
    """Jobs of others, jobs that no task waits for, and a job whose mark the user has overridden are not stopped."""
    unmarked = replace(owner, reap=False)
    airflow.has(owner, "failed")
    jobs.start_everywhere(None)
    jobs.start_everywhere(unmarked)
    jobs.submit(owner, tags={**owner.tags(), "airflow_jobflow_reap": "never"})
    jobs.submit(owner, tags={"airflow_jobflow_reap": "true", "airflow_jobflow_deployment": PRODUCTION})
    jobs.start(None, **{ARGUMENT: "{not json"})
    jobs.start(None, **{ARGUMENT: '{"dag":"etl"}'})
    report = reap(jobs, airflow, reap_deleted_runs=True)
    assert report["counts"]["not_marked"] == report["counts"]["listed"] == 10
    assert airflow.asked == []
    assert jobs.stopped() == set()


def test_a_young_job_is_left_alone(jobs: Jobs, airflow: Airflow, owner: Owner) -> None:
    """Its task may be about to stop it."""
    airflow.has(owner, "failed")
    jobs.start_everywhere(owner)
    report = reap(jobs, airflow, now=lambda: time.time() + 540)
    assert report["counts"]["too_young"] == 3
    assert jobs.stopped() == set()


def test_an_owner_that_does_not_fit_into_tags_is_reported_and_left_alone(
    jobs: Jobs, airflow: Airflow, owner: Owner
) -> None:
    """Its task cannot be looked up by a hash. A Glue run has the ids themselves."""
    strange = replace(owner, run_id="manual~1")
    airflow.has(strange, "failed")
    batch_job, task, run = jobs.start_everywhere(strange)
    report = reap(jobs, airflow, reap_deleted_runs=True)
    assert [(job["job_id"], job["action"]) for job in report["jobs"]] == [
        (batch_job, "left_alone"),
        (task, "left_alone"),
        (run, "stopped"),
    ]
    assert tag_value("manual~1") in report["jobs"][0]["owner"]
    assert report["counts"]["hashed_owner"] == 2
    jobs.are_stopped([run])


def test_jobs_cloned_in_the_console_are_left_alone(jobs: Jobs, airflow: Airflow, owner: Owner) -> None:
    """A clone has the tags or arguments of the job, but another name or ``startedBy``."""
    airflow.has(owner, "failed")
    jobs.submit(owner, jobName="my-test")
    jobs.submit(owner, jobName=f"{jobs.name(owner)}-copy")
    other = replace(owner, task_id="other")
    by_name = jobs.submit(owner, jobName=jobs.name(other))
    tasks = [jobs.run(owner, startedBy=by) for by in ("", "ecs-svc/1", other.group)]
    tampered = owner.argument(group=other.group)
    run = jobs.start(None, **{ARGUMENT: tampered})
    report = reap(jobs, airflow, reap_deleted_runs=True)
    assert {job["job_id"] for job in report["jobs"]} == {by_name, *tasks, run}
    assert {job["action"] for job in report["jobs"]} == {"left_alone"}
    assert (report["counts"]["copy"], report["counts"]["not_marked"]) == (5, 2)
    assert jobs.stopped() == set()


def test_jobs_of_a_deleted_run_are_left_alone_by_default(jobs: Jobs, airflow: Airflow, owner: Owner) -> None:
    """A run that Airflow does not know is no proof that the task has ended."""
    ids = jobs.start_everywhere(owner)
    report = reap(jobs, airflow)
    assert [(job["action"], job["state"]) for job in report["jobs"]] == [("left_alone", "unknown")] * 3
    assert jobs.stopped() == set()
    report = reap(jobs, airflow, reap_deleted_runs=True)
    assert [(job["action"], job["state"]) for job in report["jobs"]] == [("stopped", "unknown")] * 3
    jobs.are_stopped(ids)


def test_a_run_that_is_created_again_keeps_its_jobs_until_its_task_has_ended(
    jobs: Jobs, airflow: Airflow, owner: Owner
) -> None:
    """A job of the deleted run cannot be distinguished from those of the new one, whose task may handle it."""
    old = jobs.submit(owner)
    airflow.has(owner, "running")
    new = jobs.submit(owner)
    assert reap(jobs, airflow, reap_deleted_runs=True)["counts"]["task_unfinished"] == 2
    assert jobs.stopped() == set()
    airflow.has(owner, "success")
    assert reap(jobs, airflow)["counts"]["stopped"] == 2
    jobs.are_stopped([old, new])


def test_each_instance_of_a_mapped_task_has_its_own_state(jobs: Jobs, airflow: Airflow, owner: Owner) -> None:
    """This holds even next to a task whose name looks like one of them."""
    mapped = [replace(owner, map_index=index) for index in range(3)]
    similar = replace(owner, task_id="load_1")
    states = dict(zip([*mapped, similar], ["running", "failed", None, "deferred"], strict=True))
    for each, state in states.items():
        airflow.has(each, state)
    ids = [jobs.submit(each) for each in states]
    assert reap(jobs, airflow)["counts"]["stopped"] == 1
    jobs.are_stopped([ids[1]])


def test_an_array_is_stopped_as_a_whole(jobs: Jobs, airflow: Airflow, owner: Owner, account: LocalAws) -> None:
    """Its children are not stopped one by one."""
    airflow.has(owner, "failed")
    array = jobs.submit(owner, arrayProperties={"size": 3})
    eventually(lambda: jobs.batch.children(array, 3)[0]["status"] == "RUNNING")
    before = account.calls
    report = reap(jobs, airflow)
    assert report["counts"]["listed"] == 1
    assert (account.calls - before)["batch.TerminateJob"] == 1
    eventually(lambda: {child["status"] for child in jobs.batch.children(array, 3)} == {"FAILED"})


def test_children_and_nodes_in_a_list_are_left_alone() -> None:
    """If a queue ever lists them, they are stopped together with their parent."""
    owner = Owner("d", "t", "r")
    name = Jobs.name(owner)

    def answer(operation: str, **parameters: Any) -> dict[str, Any]:
        if operation == "list_jobs":
            ids = ["a:0", "b#1"] if parameters["jobStatus"] == "RUNNING" else []
            return {"jobSummaryList": [{"jobId": each, "jobName": name, "createdAt": 0} for each in ids]}
        raise AssertionError(operation)

    assert listing.batch_jobs(Script(answer), "queue", 0.0) == []


def test_a_location_that_cannot_be_listed_is_reported_and_others_are_handled(
    jobs: Jobs, airflow: Airflow, owner: Owner, caplog: pytest.LogCaptureFixture
) -> None:
    """A queue, a cluster and a job do not exist."""
    airflow.has(owner, "failed")
    ids = jobs.start_everywhere(owner)
    report = reap(
        jobs,
        airflow,
        job_queues=["no-queue", jobs.batch.queue],
        clusters=["no-cluster", jobs.ecs.cluster],
        glue_jobs=["no-job", jobs.glue_job],
    )
    assert [(each["service"], each["location"]) for each in report["problems"]] == [
        ("batch", "no-queue"),
        ("ecs", "no-cluster"),
        ("glue_run", "no-job"),
    ]
    for each, word in zip(report["problems"], ("no-queue", "Cluster not found", "no-job"), strict=True):
        assert word in each["error"]
        assert caplog.text.count(f"{each['location']}: ") == 1
    jobs.are_stopped(ids)


@pytest.mark.parametrize(
    "denied", ["batch.ListJobs", "batch.DescribeJobs", "ecs.ListTasks", "ecs.DescribeTasks", "glue.GetJobRuns"]
)
def test_a_location_that_may_not_be_listed_is_reported_and_others_are_handled(
    jobs: Jobs, airflow: Airflow, owner: Owner, account: LocalAws, denied: str
) -> None:
    """AWS's message names the permission."""
    airflow.has(owner, "failed")
    ids = jobs.start_everywhere(owner)
    account.set_faults(Faults(denied=(denied,)))
    report = reap(jobs, airflow)
    service = denied.partition(".")[0]
    [problem] = report["problems"]
    assert problem["service"].startswith(service)
    assert denied.replace(".", ":") in problem["error"]
    account.set_faults(Faults())
    kinds = {"batch": 0, "ecs": 1, "glue": 2}
    jobs.are_stopped([job_id for index, job_id in enumerate(ids) if index != kinds[service]])


def test_a_stop_that_fails_is_reported_and_others_are_stopped(
    jobs: Jobs, airflow: Airflow, owner: Owner, account: LocalAws, caplog: pytest.LogCaptureFixture
) -> None:
    """The next run of the reaper tries again."""
    airflow.has(owner, "failed")
    batch_job, task, run = jobs.start_everywhere(owner)
    account.set_faults(Faults(denied=("batch.TerminateJob", "ecs.StopTask")))
    report = reap(jobs, airflow)
    assert [(job["job_id"], job["action"]) for job in report["jobs"]] == [
        (batch_job, "stop_failed"),
        (task, "stop_failed"),
        (run, "stopped"),
    ]
    assert "batch:TerminateJob" in report["jobs"][0]["reason"]
    assert f"Could not stop Batch job {batch_job}" in caplog.text
    account.set_faults(Faults())
    reap(jobs, airflow)
    jobs.are_stopped([batch_job, task, run])


def test_no_job_is_stopped_while_airflow_does_not_respond(jobs: Jobs, owner: Owner) -> None:
    """The reaper's own task fails, and is retried."""
    jobs.submit(owner)

    def states(dag_id: str, task_ids: Sequence[str], run_ids: Sequence[str]) -> Mapping[str, Mapping[str, str]]:
        raise ConnectionError("503")

    with pytest.raises(ConnectionError):
        stop_orphans(**jobs.locations, dry_run=False, states=states, now=lambda: time.time() + ELEVEN_MINUTES)
    assert jobs.stopped() == set()


def test_a_location_that_is_named_twice_is_listed_once(jobs: Jobs, airflow: Airflow, owner: Owner) -> None:
    """It is named by name and by ARN; each job is counted and stopped once."""
    airflow.has(owner, "failed")
    jobs.submit(owner)
    [queue] = jobs.batch.batch.describe_job_queues(jobQueues=[jobs.batch.queue])["jobQueues"]
    queues = [jobs.batch.queue, jobs.batch.queue, queue["jobQueueArn"]]
    report = reap(jobs, airflow, job_queues=queues)
    assert (report["counts"]["listed"], report["counts"]["stopped"]) == (1, 1)


def operators(jobs: Jobs, **more: Any) -> list[Any]:
    """Return an operator of each service, with a long job."""
    common: dict[str, Any] = {"task_id": "load", "aws_conn_id": None, "deferrable": True, **more}
    where: dict[str, Any] = {
        "cluster": jobs.ecs.cluster,
        "subnets": ["subnet-1"],
        "task_definition": jobs.task_definition,
    }
    return [
        BatchJobOperator(job_name="n", job_queue=jobs.batch.queue, job_definition=jobs.definition, **common),
        FargateTaskOperator(**where, **common),
        GlueJobRunOperator(job_name=jobs.glue_job, **common),
    ]


def started_by(operator: Any, context: dict[str, Any]) -> Owner:
    """Start an operator's job and defer, without a triggerer; return the owner."""
    with contextlib.suppress(TaskDeferred):
        operator.execute(context)
    ti = context["ti"]
    return Owner(ti.dag_id, ti.task_id, ti.run_id, deployment=PRODUCTION)


@pytest.mark.parametrize("service", range(3), ids=["batch", "ecs", "glue_run"])
def test_the_jobs_of_the_operators_are_found(
    jobs: Jobs, airflow: Airflow, owner: Owner, context: dict[str, Any], service: int
) -> None:
    """They have the owner and the names that the reaper expects."""
    airflow.has(started_by(operators(jobs)[service], context), "failed")
    report = reap(jobs, airflow)
    assert [job["action"] for job in report["jobs"]] == ["stopped"]
    jobs.are_stopped([report["jobs"][0]["job_id"]])


@pytest.mark.parametrize("kept", [{"wait_for_completion": False}, {"cancel_on_kill": False}], ids=str)
@pytest.mark.parametrize("service", range(3), ids=["batch", "ecs", "glue_run"])
def test_jobs_that_may_outlive_their_task_are_left_alone(  # noqa: PLR0917
    jobs: Jobs, airflow: Airflow, owner: Owner, context: dict[str, Any], service: int, kept: dict[str, Any]
) -> None:
    """No task waits for them, or a kill must not stop them."""
    airflow.has(started_by(operators(jobs, **kept)[service], context), "success")
    report = reap(jobs, airflow)
    assert report["counts"]["listed"] == report["counts"]["not_marked"] == 1
    assert jobs.stopped() == set()


@pytest.mark.parametrize("where", ["job_queues", "clusters", "glue_jobs"])
def test_a_name_instead_of_a_list_is_rejected(where: str) -> None:
    """Otherwise each of its letters would count as a queue."""
    given: dict[str, Any] = {where: "hello-world-queue"}
    with pytest.raises(TypeError, match="give a list of names"):
        stop_orphans(**given)


def test_every_page_is_read(own_aws: LocalAws, here: Callable[[LocalAws], None]) -> None:
    """The last of several hundred jobs is the orphan."""
    here(own_aws)
    kit, owner = Kit(own_aws, own_aws.client("batch")), Owner("d", "t", "r", deployment="x")
    definition = kit.define(["sh", "-c", LASTS])
    ours = [
        kit.submit(jobDefinition=definition, jobName=Jobs.name(owner, f"-{index}"), tags=owner.tags())
        for index in range(130)
    ]
    airflow = Airflow(own_aws)
    airflow.has(owner, "failed")
    report = stop_orphans(
        job_queues=[kit.queue], deployment_id="x", states=airflow, now=lambda: time.time() + ELEVEN_MINUTES
    )
    assert {job["job_id"] for job in report["jobs"]} == set(ours)
    assert own_aws.calls["batch.DescribeJobs"] == 2


def test_a_glue_job_is_read_no_further_than_any_run_can_last() -> None:
    """A job that runs every minute has tens of thousands of old runs."""
    now, pages = 1_800_000_000.0, 0
    owner = Owner("d", "t", "r")

    def answer(operation: str, **parameters: Any) -> dict[str, Any]:
        nonlocal pages
        assert operation == "get_job_runs"
        pages += 1
        age = (pages - 1) * 5 * 24 * 3600
        run = {
            "Id": f"jr_{pages}",
            "JobRunState": "RUNNING",
            "StartedOn": now - age,
            "Arguments": {ARGUMENT: owner.argument()},
        }
        return {"JobRuns": [run], "NextToken": "more"}

    assert [job.job_id for job in listing.glue_runs(Script(answer), "job", now)] == ["jr_1", "jr_2"]
    assert pages == 3


def test_the_listed_states_are_those_of_aws(account: LocalAws) -> None:
    """A state that AWS adds must be classified."""
    batch = account.client("batch").meta.service_model.shape_for("JobStatus").enum
    assert set(batch) - set(listing.BATCH_UNFINISHED) == {"SUCCEEDED", "FAILED"}
    glue = account.client("glue").meta.service_model.shape_for("JobRunState").enum
    unfinished = {state for state in glue if not glue_run.STATES[state].ended} - {"STOPPING"}
    assert unfinished == listing.GLUE_UNFINISHED
