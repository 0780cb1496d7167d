"""The owner that a job carries: computed, parsed again, and never mistaken for another owner."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_jobflow.jobs.owner import (
    ARGUMENT,
    DEPLOYMENT,
    MAX_TAGS,
    REAP,
    Owner,
    attempt_token,
    group_in_name,
    is_hashed,
    job_group,
    read_argument,
    tag_value,
    with_owner_tags,
)

OWNER = Owner("etl", "load.each", "scheduled__2026-01-01T00:00:00+00:00", 3, True, "production")
ALLOWED_BY_ECS = r"[\w .:/=+\-@]*"
"""The pattern of ECS's TagValue, as a regular expression of Python."""

texts = st.text(st.characters(codec=None), min_size=1, max_size=300)
plain = st.text(st.sampled_from("aZ9é_.:/=+-@ "), min_size=1).filter(lambda text: text == text.strip())


def test_groups_and_tokens_never_change() -> None:
    """A job that an older version started would not be found."""
    assert job_group("etl", "load", "manual__1", -1) == "e12f53dce1"
    assert job_group("etl", "load", "manual__1", -1, "production") == "0d44e7a759"
    assert attempt_token("0197a9a4-0000-7000-8000-000000000000", 1) == "3a4fda504a"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("a", "b", "c", 1), ("a", "b", "c", -1)),
        (("a", "bc", "d", -1), ("ab", "c", "d", -1)),
        (("a", "b", "c", 11), ("a", "b", "c1", 1)),
        (('a","b', "c", "d", -1), ("a", 'b","c', "d", -1)),
        (("a", "b", "c", -1), ("b", "a", "c", -1)),
        (("a", "b", "c", -1), ("a", "b", "c", -1, "production")),
        (("a", "b", "c", -1, "staging"), ("a", "b", "c", -1, "production")),
    ],
)
def test_no_two_task_instances_share_a_group(one: Any, other: Any) -> None:
    """Groups differ even if ids contain the separator."""
    assert job_group(*one) != job_group(*other)


@given(texts, texts, texts, st.integers(-1, 10_000))
def test_a_group_is_valid_in_any_name(dag_id: str, task_id: str, run_id: str, map_index: int) -> None:
    """This holds for all ids."""
    assert re.fullmatch("[0-9a-f]{10}", job_group(dag_id, task_id, run_id, map_index))


def test_each_attempt_has_a_token_of_its_own() -> None:
    """Attempts of one try and of different tries have different tokens."""
    tokens = {attempt_token(ti_id, attempt) for ti_id in ("one", "two") for attempt in (1, 2, 11)}
    assert len(tokens) == 6
    assert all(re.fullmatch("[0-9a-f]{10}", each) for each in tokens)


NAMED = f"nightly-{OWNER.group}-t1m3c0-{attempt_token('ti', 1)}"


@pytest.mark.parametrize("name", [NAMED, f"{NAMED}-7", f"{NAMED}-r2-12", f"a-0123456789-t1m1c1-0123456789-{NAMED}"])
def test_the_group_of_a_batch_job_is_read_from_its_name(name: str) -> None:
    """This holds for single jobs, items of a map, and user-defined names that look like generated ones."""
    assert group_in_name(name) == OWNER.group


@pytest.mark.parametrize(
    "name",
    [
        "nightly",
        f"nightly-{OWNER.group}",
        f"{NAMED}-copy",
        f"{NAMED}_2",
        NAMED[:-1],
        NAMED.upper(),
        NAMED.removeprefix("nightly-"),
        f"{NAMED}\n",
    ],
)
def test_other_names_have_no_group(name: str) -> None:
    """For example, a copy that someone has submitted in the console."""
    assert group_in_name(name) is None


@pytest.mark.parametrize(
    "owner",
    [OWNER, Owner("d", "t", "r"), Owner("d", "t", "r", 0, False), Owner("d", "t", "r", deployment="staging/eu")],
)
def test_an_owner_is_read_as_it_was_written(owner: Owner) -> None:
    """The owner is the same after writing and parsing tags or an argument."""
    assert Owner.from_tags({**owner.tags(), "team": "data"}) == owner
    assert Owner.from_argument(owner.argument(attempt=2)) == owner


def test_the_tags_are_the_documented_ones() -> None:
    """Cost reports and people read them too."""
    assert OWNER.tags() == {
        "airflow_dag_id": "etl",
        "airflow_task_id": "load.each",
        "airflow_run_id": "scheduled__2026-01-01T00:00:00+00:00",
        "airflow_map_index": "3",
        "airflow_jobflow_reap": "true",
        "airflow_jobflow_deployment": "production",
    }
    assert not {REAP, DEPLOYMENT} & set(Owner("d", "t", "r", reap=False).tags())


@pytest.mark.parametrize(
    "value",
    ["a~b", "a\nb", "a#b", "a" * 257, "aws:a", "AWS:a", " a", "a ", "e\u0301", "🚀", "\ud800", tag_value("a~b")],
)
def test_what_aws_does_not_allow_in_a_tag_is_hashed(value: str) -> None:
    """The value is marked as hashed, so that nobody mistakes it for the id."""
    hashed = tag_value(value)
    assert hashed != value
    assert is_hashed(hashed)
    assert [Owner(*ids).hashed for ids in ((hashed, "t", "r"), ("d", hashed, "r"), ("d", "t", hashed))] == [True] * 3
    read = Owner.from_tags(Owner("d", "t", value).tags())
    assert read is not None
    assert read.hashed


@given(texts)
def test_every_tag_value_is_allowed_by_aws(value: str) -> None:
    """Otherwise AWS would reject the start."""
    written = tag_value(value)
    assert re.fullmatch(ALLOWED_BY_ECS, written)
    assert len(written) <= 256
    assert not written.lower().startswith("aws:")


@given(plain.filter(lambda text: not text.lower().startswith("aws:")))
def test_an_allowed_value_is_not_changed(value: str) -> None:
    """Otherwise the reaper could not identify the owner."""
    assert tag_value(value) == value


@given(st.builds(Owner, texts, texts, texts, st.integers(-1, 10**8), st.booleans(), texts))
def test_tags_are_parsed_as_their_owner_or_as_hashed(owner: Owner) -> None:
    """They are never parsed as another owner."""
    read = Owner.from_tags(owner.tags())
    assert read is not None
    assert read.is_of(owner.deployment)
    assert read.reap == owner.reap
    assert read.hashed or read.task_instance == owner.task_instance
    assert Owner.from_argument(owner.argument()) == owner


@pytest.mark.parametrize(
    "changed",
    [
        {"airflow_dag_id": None},
        {"airflow_task_id": ""},
        {"airflow_run_id": None},
        {"airflow_map_index": None},
        {"airflow_map_index": "first"},
        {"airflow_map_index": "-2"},
        {"airflow_map_index": "1" * 5000},
        {"airflow_map_index": "٣"},
    ],
)
def test_incomplete_tags_have_no_owner(changed: dict[str, Any]) -> None:
    """Someone else's tags may have the same keys."""
    tags = {**OWNER.tags(), **changed}
    assert Owner.from_tags({name: value for name, value in tags.items() if value is not None}) is None


@pytest.mark.parametrize("value", ["false", "True", "1", ""])
def test_only_the_value_true_permits_reaping(value: str) -> None:
    """Any other value keeps the reaper away."""
    owner = Owner.from_tags({**OWNER.tags(), REAP: value})
    assert owner is not None
    assert not owner.reap


GARBAGE = [
    "",
    "x",
    "null",
    "[]",
    "7",
    '"text"',
    "{}",
    "{" * 10,
    "[" * 100_000,
    "9" * 10_000,
    '{"dag":"d","task":"t","run":"r"}',
    '{"dag":"d","task":"t","run":"r","map":true}',
    '{"dag":"d","task":"t","run":"r","map":-2}',
    '{"dag":"d","task":"t","run":"r","map":"1"}',
    '{"dag":"","task":"t","run":"r","map":1}',
    '{"dag":1,"task":"t","run":"r","map":1}',
    '{"dag":"d","task":"t","run":"r","map":1,"deployment":null}',
]


@pytest.mark.parametrize("text", [*GARBAGE, None, 7], ids=lambda text: str(text)[:40])
def test_an_invalid_argument_has_no_owner(text: Any) -> None:
    """Whoever starts a run can set the argument to any value."""
    assert Owner.from_argument(text) is None
    assert isinstance(read_argument(text), dict)


@given(st.text())
def test_parsing_an_argument_never_raises(text: str) -> None:
    """One malformed run must not stop the reaper."""
    assert Owner.from_argument(text) is None


def test_an_argument_also_has_the_data_for_a_retry() -> None:
    """It is one line without blanks, because the console shows it."""
    text = OWNER.argument(attempt=attempt_token("ti", 1), try_number=2)
    assert json.loads(text) == read_argument(text)
    members = read_argument(text)
    assert (members["group"], members["try_number"]) == (OWNER.group, 2)
    assert members["attempt"] == attempt_token("ti", 1)
    assert " " not in text
    assert ARGUMENT.startswith("--")


@pytest.mark.parametrize("name", ["dag", "task", "run", "map", "reap", "deployment"])
def test_a_further_member_cannot_change_the_owner(name: str) -> None:
    """Otherwise it would name another task instance."""
    with pytest.raises(ValueError, match=name):
        OWNER.argument(**{name: "x"})


def test_tags_of_the_user_take_precedence() -> None:
    """Users can keep the reaper away by setting a tag."""
    tags, owned = with_owner_tags({"team": "data", REAP: "never"}, OWNER.tags())
    assert owned
    assert tags == {**OWNER.tags(), "team": "data", REAP: "never"}


@pytest.mark.parametrize(("number", "owned"), [(0, True), (44, True), (45, False), (50, False)])
def test_the_owner_is_omitted_if_there_are_too_many_tags(number: int, owned: bool) -> None:
    """All tags of the owner are omitted, because a partial owner would be useless."""
    mine = {f"tag{index}": "x" for index in range(number)}
    tags, carried = with_owner_tags(mine, OWNER.tags())
    assert carried is owned
    assert len(tags) <= MAX_TAGS
    assert tags == ({**mine, **OWNER.tags()} if owned else mine)


@pytest.mark.parametrize(
    ("deployment", "of", "expected"),
    [
        ("a", "a", True),
        ("a", "b", False),
        ("", "", True),
        ("a", "", False),
        ("", "a", False),
        (tag_value("a~b"), "a~b", True),
        ("a~b", "a~b", True),
    ],
)
def test_a_deployment_owns_only_the_jobs_with_its_id(deployment: str, of: str, expected: bool) -> None:
    """A deployment without an id owns the jobs without one."""
    assert Owner("d", "t", "r", deployment=deployment).is_of(of) is expected
