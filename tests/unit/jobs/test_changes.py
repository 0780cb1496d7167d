"""What the next attempt of a job changes: computed from the rules, the job's history and its last snapshot."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_jobflow.jobs.changes import CAUSES, AtMaximum, Change, Changes, factor_of
from airflow_jobflow.jobs.fargate_sizes import SIZES
from airflow_jobflow.jobs.model import ArrayProgress, JobState, Snapshot

OUT_OF_MEMORY = "OutOfMemoryError: Container killed due to memory usage"
SPOT = "Host EC2 (instance i-0123456789abcdef0) terminated."
TIMED_OUT = "Job attempt duration exceeded timeout"


def failed(
    memory: float | None = 2048, vcpus: float = 1.0, *, fargate: bool = False, reason: str = OUT_OF_MEMORY, **more: Any
) -> Snapshot:
    """Return the last snapshot of a job that failed with so much memory."""
    resources = {"vcpu": vcpus} | ({} if memory is None else {"gib": memory / 1024})
    members: dict[str, Any] = {"exit_code": 137, "resources": resources, "fargate": fargate} | more
    return Snapshot("j-1", JobState.FAILED, "FAILED", reason=reason, **members)


def change(rules: dict[str, dict[str, Any]], history: str, last: Snapshot, cpu: str = "vcpus") -> Change:
    """Return the change after a history, which there must be."""
    found = Changes(rules, cpu).after(history, last)
    assert isinstance(found, Change), found
    return found


DOUBLE: dict[str, dict[str, Any]] = {"m": {"memory": "x2", "max": 61440}}


@pytest.mark.parametrize(
    ("last", "letter"),
    [
        (failed(), "m"),
        (failed(reason="Essential container in task exited"), "m"),  # killed by SIGKILL: most often out of memory
        (failed(reason=SPOT, exit_code=None), "c"),
        (failed(reason="Canceled by JobStateTimeLimit action due to reason: CAPACITY:INSUFFICIENT_INSTANCE"), "c"),
        (failed(reason="InsufficientFreeAddressesInSubnet", exit_code=None), "c"),
        (failed(reason=TIMED_OUT), "t"),
        (failed(reason="Essential container in task exited", exit_code=1), ""),
        (failed(stopped_by_request=True), ""),
    ],
)
def test_the_cause_of_a_failure_selects_the_rule(last: Snapshot, letter: str) -> None:
    """A job that failed by itself, or that a person stopped, is not changed."""
    rules = {each: {"memory": 4096} for each in "mct"}
    assert Changes(rules).cause(last) == letter
    assert not Changes({}).cause(last), "without rules, nothing applies"


def test_a_cause_without_a_rule_changes_nothing() -> None:
    """A job that ran out of memory does not get another queue."""
    assert not Changes({"c": {"job_queue": "on-demand"}}).cause(failed())


def test_on_capacity_decides_before_on_spot_interruption() -> None:
    """Two parameters that both apply would make it unpredictable what happens."""
    interrupted = failed(reason=SPOT, exit_code=None)
    assert Changes({"i": {}, "c": {"job_queue": "q"}}).cause(interrupted) == "c"
    assert Changes({"i": {}}).cause(interrupted) == "i"
    assert not Changes({"i": {}}).cause(failed(reason="Canceled by JobStateTimeLimit: CAPACITY:X", exit_code=None))


def test_the_failed_children_of_an_array_explain_its_cause() -> None:
    """The array's own reason says only that children failed."""
    array = failed(reason="Array Child Job failed", exit_code=None, array=ArrayProgress(3, failed=2))
    assert Changes(DOUBLE).cause(array, [failed()]) == "m"
    assert not Changes(DOUBLE).cause(array)
    capacity = Changes({"c": {"job_queue": "on-demand"}})
    children = [failed(reason=SPOT, exit_code=None), failed(reason="x", exit_code=2)]
    assert not capacity.cause(array, children), "the failure decides that a retry helps least"


def test_a_factor_multiplies_what_the_failed_attempt_had() -> None:
    """What the definition gave the job counts, not what the operator was given."""
    found = change(DOUBLE, "m", failed(2048))
    assert found.values == found.changed == {"memory": 4096}
    assert found.text == "memory from 2,048 to 4,096 MiB, because the container ran out of memory and was killed"
    assert change({"m": {"memory": "x1.5"}}, "mm", failed(1001)).values == {"memory": 1502}, "whole MiB, rounded up"


def test_a_factor_stops_at_max_and_is_then_final() -> None:
    """Without that, a job that needs more than anyone allows is started again and again."""
    assert change(DOUBLE, "mm", failed(40000)).values == {"memory": 61440}
    at_maximum = Changes(DOUBLE).after("mmm", failed(61440))
    assert at_maximum == AtMaximum(
        "m", "It already had 61,440 MiB (memory), the most that on_out_of_memory allows, so it is not tried again."
    )
    assert isinstance(Changes(DOUBLE).after("m", failed(70000)), AtMaximum), "the definition gives more than max"


@pytest.mark.parametrize(
    ("cpu", "memory", "rule", "expected"),
    [
        (0.25, 512, {"memory": "x2"}, {"vcpus": 0.25, "memory": 1024}),
        (0.25, 2048, {"memory": "x2"}, {"vcpus": 0.5, "memory": 4096}),
        (1, 3072, {"memory": "x1.5"}, {"vcpus": 1, "memory": 5120}),
        (1, 8192, {"memory": "x2", "max": 10000}, {"vcpus": 2, "memory": 9216}),
        (1, 2048, {"memory": 5000}, {"vcpus": 1, "memory": 5120}),
        (1, 2048, {"vcpus": "x4"}, {"vcpus": 4, "memory": 8192}),
        (4, 30720, {"memory": "x2", "max": 61440}, {"vcpus": 8, "memory": 61440}),
    ],
)
def test_sizes_on_fargate_are_those_that_fargate_has(
    cpu: float, memory: int, rule: dict[str, Any], expected: dict[str, Any]
) -> None:
    """A size that Fargate does not have is rejected by AWS; more memory may need more CPU."""
    found = change({"m": rule}, "m", failed(memory, cpu, fargate=True))
    assert found.values == expected


def test_the_text_says_that_cpu_grows_with_the_memory() -> None:
    """CPU costs money that nobody asked to spend."""
    found = change(DOUBLE, "m", failed(2048, 0.25, fargate=True))
    assert found.changed == {"vcpus": 0.5, "memory": 4096}
    assert found.text.startswith("memory from 2,048 to 4,096 MiB, vcpus from 0.25 to 0.5 vCPUs, because")


def test_cpu_units_are_those_of_ecs() -> None:
    """ECS counts 1024 CPU units per vCPU."""
    assert change(DOUBLE, "m", failed(2048, 0.25, fargate=True), cpu="cpu").values == {"cpu": 512, "memory": 4096}


def test_the_largest_size_of_fargate_is_final() -> None:
    """There is no larger one to try."""
    found = Changes({"m": {"memory": "x2"}}).after("m", failed(249856, 32, fargate=True))
    assert isinstance(found, AtMaximum)
    assert "the most that Fargate has" in found.text


@given(
    st.sampled_from(sorted((cpu, mib) for cpu, of_cpu in SIZES.items() for mib in of_cpu)),
    st.floats(1.01, 8),
    st.integers(512, 300_000),
)
def test_every_change_on_fargate_is_a_size_within_max(size: tuple[int, int], factor: float, most: int) -> None:
    """No attempt is submitted that Fargate rejects, that costs more than allowed, or that has less than the last."""
    cpu, memory = size
    rules = {"m": {"memory": f"x{factor}", "max": most}}
    found = Changes(rules, "cpu").after("m", failed(memory, cpu / 1024, fargate=True))
    if isinstance(found, Change):
        assert found.values["memory"] in SIZES[found.values["cpu"]]
        assert memory < found.values["memory"] <= most
    else:
        larger = [mib for units, of_cpu in SIZES.items() if units >= cpu for mib in of_cpu if mib > memory]
        assert not any(mib <= most for mib in larger)


def test_what_a_cause_has_changed_stays_changed() -> None:
    """An attempt on another queue that gets the old memory runs out of it again."""
    rules = {**DOUBLE, "c": {"job_queue": "on-demand"}}
    found = change(rules, "mc", failed(4096, reason=SPOT, exit_code=None))
    assert found.values == {"memory": 4096, "job_queue": "on-demand"}
    assert found.changed == {"job_queue": "on-demand"}
    assert found.text.startswith("job_queue to on-demand, because the host under the job was taken away")
    again = change(rules, "mcm", failed(4096))
    assert again.values == {"job_queue": "on-demand", "memory": 8192}
    assert again.changed == {"memory": 8192}


def test_capacity_is_tried_again_without_a_change() -> None:
    """The lack of capacity passes, even if there is no third queue."""
    found = change({"c": {"job_queue": "on-demand"}}, "cc", failed(reason=SPOT, exit_code=None))
    assert (found.values, found.changed) == ({"job_queue": "on-demand"}, {})
    assert found.text.startswith("nothing changes, because")


def test_a_fixed_value_helps_once() -> None:
    """A job that ran out of the memory that the rule gives would do so again."""
    rules = {"m": {"memory": 8192}}
    assert change(rules, "m", failed(2048)).values == {"memory": 8192}
    assert isinstance(Changes(rules).after("mm", failed(8192)), AtMaximum)
    assert isinstance(Changes(rules).after("m", failed(16384)), AtMaximum), "the definition gives more"
    elsewhere = {"m": {"job_queue": "large"}}
    assert change(elsewhere, "m", failed()).values == {"job_queue": "large"}
    assert isinstance(Changes(elsewhere).after("mm", failed()), AtMaximum)


def test_a_longer_time_limit() -> None:
    """Batch ends each attempt after it. It is rounded up to whole minutes, which Glue requires."""
    found = change({"t": {"attempt_timeout": "x1.9"}}, "t", failed(reason=TIMED_OUT, attempt_timeout=90))
    assert found.values == {"attempt_timeout": 180}
    assert found.text == (
        "attempt_timeout from 90 to 180 s, because it ran longer than its attempt time-out and was ended"
    )


def test_an_unknown_size_cannot_be_multiplied() -> None:
    """A task on EC2 whose containers have no memory of their own says nothing that a factor could apply to."""
    found = Changes(DOUBLE).after("m", failed(None))
    assert isinstance(found, AtMaximum)
    assert "Give on_out_of_memory a fixed memory" in found.text


def test_the_rules_travel_as_json() -> None:
    """Triggers carry them; those of another version may have other members, or none."""
    rules = Changes({**DOUBLE, "i": {}}, "cpu")
    assert Changes.from_dict(json.loads(json.dumps(rules.to_dict()))) == rules
    assert Changes.from_dict({"rules": {"z": {}}, "later": 1}) == Changes()
    assert not Changes.from_dict(None)


@pytest.mark.parametrize(("value", "factor"), [("x2", 2.0), ("x1.5", 1.5), ("xlarge", None), (2, None), ("xinf", None)])
def test_a_factor_is_a_text_with_an_x(value: Any, factor: float | None) -> None:
    """Names that begin with an x are not factors."""
    assert factor_of(value) == factor


def test_the_outcome_names_the_cause_as_the_parameter_does() -> None:
    """``on_<cause>`` is what a person can look up."""
    entry = change(DOUBLE, "m", failed()).to_dict(2)
    assert entry == {"attempt": 2, "cause": "out_of_memory", "changed": {"memory": 4096}, "text": entry["text"]}
    assert [cause.parameter for cause in CAUSES.values()] == [
        "on_out_of_memory",
        "on_capacity",
        "on_timeout",
        "on_spot_interruption",
    ]


def test_a_bounded_time_limit_is_not_rounded_beyond_its_bound() -> None:
    """And it stays as it is when the next failure has another cause."""
    rules: dict[str, dict[str, Any]] = {"t": {"attempt_timeout": "x2", "max": 100}, "c": {"job_queue": "q"}}
    assert change(rules, "t", failed(reason=TIMED_OUT, attempt_timeout=60)).values == {"attempt_timeout": 100}
    interrupted = failed(reason=SPOT, exit_code=None, attempt_timeout=100)
    assert change(rules, "tc", interrupted).values == {"attempt_timeout": 100, "job_queue": "q"}


def test_vcpus_outside_fargate_are_whole() -> None:
    """Batch on EC2 has no parts of a vCPU."""
    assert change({"t": {"vcpus": "x1.5"}}, "t", failed(reason=TIMED_OUT, vcpus=3)).values == {"vcpus": 5}
