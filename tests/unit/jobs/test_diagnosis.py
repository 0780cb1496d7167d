"""Diagnosis: AWS's reasons for a failed job, and the cause derived from them."""

from __future__ import annotations

import pickle
import re
from collections import Counter
from typing import Any

import pytest

from airflow_jobflow.jobs import causes, reasons
from airflow_jobflow.jobs.causes import BY_CAUSE, Blame, Diagnosis
from airflow_jobflow.jobs.diagnosis import CODES, EXIT_CODES, PRECEDENCE, decisive, diagnose
from airflow_jobflow.jobs.model import ArrayProgress, JobState, Snapshot
from tests.unit.jobs import aws_reasons

ENDED = "Essential container in task exited"
SPOT = "Your Spot Task was interrupted."
LINES = list(aws_reasons.lines())


def failed(**fields: Any) -> Snapshot:
    """Return a failed job."""
    defaults: dict[str, Any] = {"job_id": "abc", "name": "hello", "state": JobState.FAILED, "status": "FAILED"}
    return Snapshot(**{**defaults, **fields})


def cause_of(snapshot: Snapshot) -> str:
    """Return the cause of a failure."""
    diagnosis = diagnose(snapshot)
    assert diagnosis
    return diagnosis.cause


# The reasons of AWS.


@pytest.mark.parametrize(("cause", "line"), LINES, ids=[f"{cause}-{number}" for number, (cause, _) in enumerate(LINES)])
def test_a_reason_of_aws_leads_to_its_cause(cause: str, line: dict[str, Any]) -> None:
    """A wrong cause would mislead people and retry policies."""
    assert cause_of(aws_reasons.snapshot(line)) == cause


def test_the_corpus_is_complete() -> None:
    """It has at least 80 lines; each has a known source, each source has a line, and each cause of a single job has
    one.
    """
    assert len(LINES) >= 80
    assert {line["from"] for _, line in LINES} == set(aws_reasons.SOURCES)
    assert set(BY_CAUSE) - set(aws_reasons.CAUSES) == {"children_failed", "stopped", "no_result", "result_not_read"}
    assert {cause: entry["blame"] for cause, entry in aws_reasons.CAUSES.items()} == {
        cause: BY_CAUSE[cause].blame for cause in aws_reasons.CAUSES
    }


def test_every_rule_has_a_line_in_the_corpus() -> None:
    """A rule without a real reason would be a guess."""
    words = [line[name] for _, line in LINES for name in ("container", "reason") if line.get(name)]
    unused = [
        rule.pattern.pattern
        for rule in (*reasons.RULES, *reasons.FALLBACKS)
        if not any(rule.pattern.search(each) for each in words)
    ]
    assert unused == []
    assert {rule.cause for rule in (*reasons.RULES, *reasons.FALLBACKS)} <= set(BY_CAUSE)


@pytest.mark.parametrize("words", ["Something new", "ÄÖÜ\x00\n" * 100_000, "(((", "   "])
@pytest.mark.parametrize("name", ["reason", "container_reason"])
def test_an_unknown_reason_has_no_cause(words: str, name: str) -> None:
    """A guessed cause would mislead people, and decide wrongly about the retry."""
    diagnosis = diagnose(failed(**{name: words}))
    assert diagnosis is causes.UNKNOWN
    assert diagnosis.blame is Blame.UNKNOWN


@pytest.mark.parametrize(
    "prefix",
    ["CannotPullContainerError", "CannotStartContainerError", "ResourceInitializationError", "HostConfigError"],
)
def test_a_prefix_alone_does_not_decide_the_cause(prefix: str) -> None:
    """The same prefix precedes transient and permanent details."""
    diagnosis = diagnose(failed(reason=f"{prefix}: something new", code="TaskFailedToStart"))
    assert diagnosis
    assert diagnosis.blame is Blame.UNKNOWN


@pytest.mark.parametrize(
    "words", ["ConnectionResetError: i/o timeout", "requests.exceptions.HTTPError: 503 Service Unavailable"]
)
def test_an_error_of_a_script_is_not_an_error_of_the_start(words: str) -> None:
    """For example, a timeout that a script reports is not one of AWS."""
    assert cause_of(failed(code="FAILED", reason=words)) == "command_failed"


def test_an_error_name_of_aws_is_not_a_python_exception() -> None:
    """A DockerTimeoutError must not be diagnosed as an error of the command, which never ran."""
    assert cause_of(failed(reason="AgentGremlinError: something new")) == "unknown"


def test_an_exit_code_outweighs_an_error_of_the_start() -> None:
    """A container with an exit code was started."""
    assert (
        cause_of(failed(container_reason="CannotStopContainerError: x", reason=ENDED, exit_code=1)) == "command_failed"
    )


def test_the_container_reason_outweighs_the_status_reason() -> None:
    """An out-of-memory error on a host that terminates later is still an out-of-memory error."""
    both = failed(
        container_reason="OutOfMemoryError: x", reason="Host EC2 (instance i-0abc) terminated.", exit_code=137
    )
    assert cause_of(both) == "out_of_memory"


def test_a_stopped_job_is_diagnosed_as_stopped() -> None:
    """The exit code of a stopped job only reflects the stop."""
    assert cause_of(failed(reason="enough", stopped_by_request=True, exit_code=137)) == "stopped"
    assert cause_of(failed(code="STOPPED", stopped_by_request=True)) == "stopped"


@pytest.mark.parametrize("cause", ["no_capacity", "misconfigured", "host_lost"])
def test_a_job_that_aws_ended_was_not_stopped_on_request(cause: str) -> None:
    """Batch marks as canceled what ``jobStateTimeLimitActions`` end; ECS maintenance appears as a stop by the
    scheduler.
    """
    ended = [aws_reasons.snapshot(line) for found, line in LINES if found == cause]
    assert ended
    assert not any(snapshot.stopped_by_request for snapshot in ended)


def test_a_job_that_has_not_failed_has_no_diagnosis() -> None:
    """A successful or running job has none."""
    assert diagnose(failed(state=JobState.SUCCEEDED, status="SUCCEEDED", exit_code=0)) is None


# Several failures.


@pytest.mark.parametrize(
    ("several", "decides"),
    [
        ({"spot_reclaimed": 40, "command_failed": 1}, "command_failed"),
        ({"spot_reclaimed": 40, "out_of_memory": 1}, "out_of_memory"),
        ({"command_failed": 40, "out_of_memory": 1}, "out_of_memory"),
        ({"throttled": 3, "unknown": 1}, "unknown"),
        ({"throttled": 3, "stopped": 1}, "stopped"),
        ({"spot_reclaimed": 3, "throttled": 1}, "throttled"),
        ({"crashed": 1, "command_failed": 2}, "command_failed"),
        ({"crashed": 1, "command_failed": 1}, "crashed"),
        ({"spot_reclaimed": 3}, "spot_reclaimed"),
    ],
)
def test_the_failure_that_a_retry_fixes_least_decides(several: dict[str, int], decides: str) -> None:
    """With a bug in one item, a retry fails even if the other 40 items were interrupted."""
    found = decisive(BY_CAUSE[cause] for cause, count in several.items() for _ in range(count))
    assert found is BY_CAUSE[decides]


def test_without_failures_there_is_no_decision() -> None:
    """No child could be described."""
    assert decisive([]) is None


def test_every_blame_has_a_rank() -> None:
    """A missing rank would raise an error at run time."""
    assert Counter(PRECEDENCE) == Counter(Blame)


def test_the_cause_of_an_array_is_that_of_its_children() -> None:
    """The parent's reason is only that children failed."""
    parent = failed(reason="Array Child Job failed", array=ArrayProgress(50, failed=41))
    spot = [failed(job_id=f"abc:{index}", reason=SPOT) for index in range(40)]
    bug = failed(job_id="abc:40", reason=ENDED, exit_code=1)
    assert diagnose(parent, children=spot) is causes.SPOT_RECLAIMED
    assert diagnose(parent, children=[*spot, bug]) is causes.COMMAND_FAILED
    assert diagnose(parent) is causes.CHILDREN_FAILED


def test_an_array_that_was_stopped_was_stopped() -> None:
    """The children of a stopped array are not its cause."""
    parent = failed(reason="enough", stopped_by_request=True, array=ArrayProgress(2, failed=2))
    assert diagnose(parent, children=[failed(reason=ENDED, exit_code=1)]) is causes.STOPPED


# Messages and advice.


@pytest.mark.parametrize("diagnosis", BY_CAUSE.values(), ids=BY_CAUSE)
def test_every_diagnosis_has_advice(diagnosis: Diagnosis) -> None:
    """A cause without advice does not help the reader."""
    assert diagnosis.summary[0].isupper()
    assert not diagnosis.summary.endswith(".")
    for advice in (diagnosis.advice, *diagnosis.advice_for.values()):
        assert advice.endswith(".")
    assert set(diagnosis.advice_for) <= {"batch", "ecs", "glue_crawl", "glue_run"}


FOREIGN = {
    "batch": r"worker_type|assign_public_ip|on_spot_interruption|task definition|crawler",
    "ecs": r"evaluateOnExit|resourceRequirements|job definition|container_overrides|compute environment|crawler"
    r"|worker_type|job role",
    "glue_crawl": r"evaluateOnExit|resourceRequirements|task definition|job definition|assign_public_ip|worker_type",
    "glue_run": r"evaluateOnExit|resourceRequirements|task definition|job definition|assign_public_ip|crawler's",
}
"""Terms of other services, which the advice for a service must not contain."""

ONLY_ON_BATCH = {"misconfigured", "dependency_failed", "children_failed"}


@pytest.mark.parametrize("service", FOREIGN)
@pytest.mark.parametrize("diagnosis", BY_CAUSE.values(), ids=BY_CAUSE)
def test_advice_fits_the_service(diagnosis: Diagnosis, service: str) -> None:
    """``evaluateOnExit`` does not exist for Fargate tasks."""
    text = str(diagnosis.on(service))
    assert text.startswith(str(diagnosis))
    if service == "batch" or diagnosis.cause not in ONLY_ON_BATCH:
        assert not re.search(FOREIGN[service], text)


def test_a_diagnosis_can_be_pickled() -> None:
    """Errors carry it, and Airflow pickles errors."""
    diagnosis = causes.OUT_OF_MEMORY.on("ecs")
    assert pickle.loads(pickle.dumps(diagnosis)) == diagnosis
    assert hash(diagnosis)


def test_codes_and_exit_codes_lead_to_known_causes() -> None:
    """Otherwise a page of the documentation would be missing."""
    assert {each.cause for each in (*CODES.values(), *EXIT_CODES.values())} <= set(BY_CAUSE)
