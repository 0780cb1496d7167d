"""The decisions of Batch, without a server."""

from __future__ import annotations

import pytest

from airflow_jobflow.local.batch import model


def test_references_are_replaced_and_unknown_ones_kept() -> None:
    """A parameter replaces a whole element; one without a value is not replaced."""
    command = model.substitute(["x", "Ref::a", "Ref::b", "-Ref::a"], {"a": "1"})
    assert command == ["x", "1", "Ref::b", "-Ref::a"]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"onExitCode": "1", "action": "EXIT"}, False),
        ({"onExitCode": "1*", "action": "exit"}, False),
        ({"onExitCode": "2", "action": "EXIT"}, True),
        ({"onStatusReason": "Host EC2*", "action": "EXIT"}, True),
        ({"onReason": "*", "action": "EXIT"}, False),
        ({"onReason": "Out*", "onExitCode": "1", "action": "EXIT"}, True),
        ({"onStatusReason": "Essential", "action": "EXIT"}, True),
        ({"onStatusReason": "Essential*", "onExitCode": "1", "action": "EXIT"}, False),
    ],
)
def test_rule_matches_only_if_all_its_conditions_do(rule: dict[str, str], expected: bool) -> None:
    """Without a matching rule, the attempt is retried."""
    retried = model.retries([rule], status_reason="Essential container in task exited", reason=None, exit_code=1)
    assert retried is expected


def test_first_matching_rule_decides() -> None:
    """A common pair of rules retries after a Spot interruption, and exits otherwise."""
    rules = [{"onStatusReason": "Host EC2*", "action": "RETRY"}, {"onReason": "*", "action": "EXIT"}]
    assert model.retries(rules, status_reason="Host EC2 (instance i-0) terminated.", reason=None, exit_code=None)
    assert not model.retries(rules, status_reason="Essential container in task exited", reason="", exit_code=3)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({"SUCCEEDED": 3}, "SUCCEEDED"),
        ({"SUCCEEDED": 2, "FAILED": 1}, "FAILED"),
        ({"SUCCEEDED": 2, "RUNNING": 1}, "PENDING"),
        ({"FAILED": 2, "RUNNABLE": 1}, "PENDING"),
    ],
)
def test_parent_is_pending_until_all_children_ended(counts: dict[str, int], expected: str) -> None:
    """One failed child fails the parent, but only after the others have ended."""
    assert model.parent_status(counts, 3) == expected


def test_summary_counts_every_status() -> None:
    """Batch also lists statuses without children."""
    assert model.status_summary({"FAILED": 2}) == {**dict.fromkeys(model.STATUSES, 0), "FAILED": 2}


def test_dependencies_of_children_follow_their_index() -> None:
    """N_TO_N waits for the same index, SEQUENTIAL for the previous one, others for the whole job."""
    depends_on = [{"jobId": "other", "type": "N_TO_N"}, {"type": "SEQUENTIAL"}, {"jobId": "plain"}]
    assert model.dependencies(depends_on, 0, "me") == ["other:0", "plain"]
    assert model.dependencies(depends_on, 2, "me") == ["other:2", "me:1", "plain"]


def test_overrides_replace_and_merge() -> None:
    """Overrides replace the command, and merge environment and resources by name; parameters override defaults."""
    definition = {
        "parameters": {"a": "default", "b": "default"},
        "containerProperties": {
            "image": "i",
            "command": ["Ref::a", "Ref::b"],
            "environment": [{"name": "X", "value": "1"}, {"name": "Y", "value": "1"}],
            "resourceRequirements": [{"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": "4"}],
        },
    }
    request = {
        "parameters": {"b": "given"},
        "containerOverrides": {
            "environment": [{"name": "Y", "value": "2"}, {"name": "Z", "value": "3"}],
            "resourceRequirements": [{"type": "MEMORY", "value": "8"}],
        },
    }
    (container,) = model.containers_of(definition, request)
    assert container["command"] == ["default", "given"]
    assert {each["name"]: each["value"] for each in container["environment"]} == {
        "X": "1",
        "Y": "2",
        "Z": "3",
    }
    assert {each["type"]: each["value"] for each in container["resourceRequirements"]} == {
        "VCPU": "1",
        "MEMORY": "8",
    }


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("JOB_NAME", ["nightly"], False),
        ("JOB_NAME", ["NIGHTLY*"], True),
        ("JOB_NAME", ["other", "nightly-1"], True),
        ("JOB_DEFINITION", ["def"], True),
        ("JOB_DEFINITION", ["def:2"], False),
        ("BEFORE_CREATED_AT", ["10"], False),
        ("AFTER_CREATED_AT", ["9"], True),
        ("SHARE_IDENTIFIER", ["x"], False),
    ],
)
def test_filters_of_list_jobs(name: str, values: list[str], expected: bool) -> None:
    """Names match regardless of case, and with an asterisk by prefix."""
    summary = {
        "jobName": "Nightly-1",
        "jobDefinition": "arn:aws:batch:r:1:job-definition/def:1",
        "createdAt": 10,
    }
    assert model.matches_filter(summary, name, values) is expected
