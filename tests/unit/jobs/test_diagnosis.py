"""Why a job failed: what AWS says, and what is derived from it."""

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
    """A job that has failed."""
    defaults: dict[str, Any] = {"job_id": "abc", "name": "hello", "state": JobState.FAILED, "status": "FAILED"}
    return Snapshot(**{**defaults, **fields})


def cause_of(snapshot: Snapshot) -> str:
    """The cause of a failure."""
    diagnosis = diagnose(snapshot)
    assert diagnosis
    return diagnosis.cause


# What AWS says.


@pytest.mark.parametrize(("cause", "line"), LINES, ids=[f"{cause}-{number}" for number, (cause, _) in enumerate(LINES)])
def test_aws_words_lead_to_the_cause(cause: str, line: dict[str, Any]) -> None:
    """A wrong cause sends a person, or a retry policy, the wrong way."""
    assert cause_of(aws_reasons.snapshot(line)) == cause


def test_the_corpus_is_complete() -> None:
    """At least 80 lines; each has a known source, and each source has a line; every cause of a single job is in it."""
    assert len(LINES) >= 80
    assert {line["from"] for _, line in LINES} == set(aws_reasons.SOURCES)
    assert set(BY_CAUSE) - set(aws_reasons.CAUSES) == {"children_failed", "stopped", "no_result", "result_not_read"}
    assert {cause: entry["blame"] for cause, entry in aws_reasons.CAUSES.items()} == {
        cause: BY_CAUSE[cause].blame for cause in aws_reasons.CAUSES
    }


def test_every_rule_has_a_line_in_the_corpus() -> None:
    """A rule that no real reason needs is a guess."""
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
def test_what_no_rule_knows_blames_nobody(words: str, name: str) -> None:
    """Whoever is blamed wrongly looks in the wrong place, and the task is retried or not for the wrong reason."""
    diagnosis = diagnose(failed(**{name: words}))
    assert diagnosis is causes.UNKNOWN
    assert diagnosis.blame is Blame.UNKNOWN


@pytest.mark.parametrize(
    "prefix",
    ["CannotPullContainerError", "CannotStartContainerError", "ResourceInitializationError", "HostConfigError"],
)
def test_a_prefix_alone_blames_nobody(prefix: str) -> None:
    """It precedes transient and permanent details alike."""
    diagnosis = diagnose(failed(reason=f"{prefix}: something new", code="TaskFailedToStart"))
    assert diagnosis
    assert diagnosis.blame is Blame.UNKNOWN


@pytest.mark.parametrize(
    "words", ["ConnectionResetError: i/o timeout", "requests.exceptions.HTTPError: 503 Service Unavailable"]
)
def test_what_a_script_raises_is_no_fault_of_the_start(words: str) -> None:
    """A script's own time-out is the script's."""
    assert cause_of(failed(code="FAILED", reason=words)) == "command_failed"


def test_an_error_name_of_aws_is_not_taken_for_a_python_exception() -> None:
    """'DockerTimeoutError: …' was once 'the command itself ended with an error', though no command had run."""
    assert cause_of(failed(reason="AgentGremlinError: something new")) == "unknown"


def test_an_exit_code_says_more_than_that_something_else_could_not_be_done() -> None:
    """The container was started: it has an exit code."""
    assert (
        cause_of(failed(container_reason="CannotStopContainerError: x", reason=ENDED, exit_code=1)) == "command_failed"
    )


def test_the_container_reason_comes_first() -> None:
    """Out of memory on a host that was about to go is out of memory."""
    both = failed(
        container_reason="OutOfMemoryError: x", reason="Host EC2 (instance i-0abc) terminated.", exit_code=137
    )
    assert cause_of(both) == "out_of_memory"


def test_a_stopped_job_was_stopped_whatever_else_is_said() -> None:
    """Its exit code is that of the stop."""
    assert cause_of(failed(reason="enough", stopped_by_request=True, exit_code=137)) == "stopped"
    assert cause_of(failed(code="STOPPED", stopped_by_request=True)) == "stopped"


@pytest.mark.parametrize("cause", ["no_capacity", "misconfigured", "host_lost"])
def test_what_aws_ends_by_itself_was_not_stopped_on_request(cause: str) -> None:
    """Batch marks as canceled what jobStateTimeLimitActions end, ECS maintenance as the scheduler's doing."""
    ended = [aws_reasons.snapshot(line) for found, line in LINES if found == cause]
    assert ended
    assert not any(snapshot.stopped_by_request for snapshot in ended)


def test_a_job_that_has_not_failed_has_no_diagnosis() -> None:
    """Success needs no explanation."""
    assert diagnose(failed(state=JobState.SUCCEEDED, status="SUCCEEDED", exit_code=0)) is None


# Of several.


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
def test_the_failure_that_a_retry_helps_least_decides(several: dict[str, int], decides: str) -> None:
    """Spot for 40 items and a bug in one is not 'Spot': a retry of all of them fails too."""
    found = decisive(BY_CAUSE[cause] for cause, count in several.items() for _ in range(count))
    assert found is BY_CAUSE[decides]


def test_of_none_nothing_decides() -> None:
    """Nobody could be asked."""
    assert decisive([]) is None


def test_every_blame_has_its_place() -> None:
    """One that has none would be an error at run time."""
    assert Counter(PRECEDENCE) == Counter(Blame)


def test_the_cause_of_an_array_is_that_of_its_children() -> None:
    """The parent only says that children failed."""
    parent = failed(reason="Array Child Job failed", array=ArrayProgress(50, failed=41))
    spot = [failed(job_id=f"abc:{index}", reason=SPOT) for index in range(40)]
    bug = failed(job_id="abc:40", reason=ENDED, exit_code=1)
    assert diagnose(parent, children=spot) is causes.SPOT_RECLAIMED
    assert diagnose(parent, children=[*spot, bug]) is causes.COMMAND_FAILED
    assert diagnose(parent) is causes.CHILDREN_FAILED


def test_an_array_that_was_stopped_was_stopped() -> None:
    """Its children ended with it."""
    parent = failed(reason="enough", stopped_by_request=True, array=ArrayProgress(2, failed=2))
    assert diagnose(parent, children=[failed(reason=ENDED, exit_code=1)]) is causes.STOPPED


# What is said.


@pytest.mark.parametrize("diagnosis", BY_CAUSE.values(), ids=BY_CAUSE)
def test_every_diagnosis_says_what_to_do(diagnosis: Diagnosis) -> None:
    """A cause without advice leaves the reader where they were."""
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
"""What one service's advice does not speak of."""

ONLY_ON_BATCH = {"misconfigured", "dependency_failed", "children_failed"}


@pytest.mark.parametrize("service", FOREIGN)
@pytest.mark.parametrize("diagnosis", BY_CAUSE.values(), ids=BY_CAUSE)
def test_advice_fits_the_service(diagnosis: Diagnosis, service: str) -> None:
    """'evaluateOnExit' is of no use to a Fargate task."""
    text = str(diagnosis.on(service))
    assert text.startswith(str(diagnosis))
    if service == "batch" or diagnosis.cause not in ONLY_ON_BATCH:
        assert not re.search(FOREIGN[service], text)


def test_a_diagnosis_travels_between_processes() -> None:
    """Errors carry it, and errors are pickled."""
    diagnosis = causes.OUT_OF_MEMORY.on("ecs")
    assert pickle.loads(pickle.dumps(diagnosis)) == diagnosis
    assert hash(diagnosis)


def test_codes_and_exit_codes_lead_to_causes_of_the_table() -> None:
    """Else a page of the documentation is missing."""
    assert {each.cause for each in (*CODES.values(), *EXIT_CODES.values())} <= set(BY_CAUSE)
