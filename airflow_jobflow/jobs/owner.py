"""The owner of a job: the identity that each of our jobs carries, so that it can be found without any record.

A job has two computed identifiers. Its **group** is a hash of the Airflow deployment, DAG, run, task and map index, by
which all jobs of a task instance can be found. Its **attempt token** is a hash of the task instance's id and a counter,
and differs for every attempt. The ``Owner`` is the readable form, as tags (Batch, ECS) or as one argument (Glue job
runs).

Invariants:

- Everything here is computed from its arguments. Nothing is random, and nothing depends on the process or the time.
- A written owner is read as the same owner, as one with hashed ids, or as None; never as another owner.
- The user's own tags are never changed.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

DIGITS: Final = 10
"""Hexadecimal characters of a group and of an attempt token. They are part of names that AWS limits to 128 (Batch) and
64 characters (ECS); 40 bits make two equal groups unlikely among a million."""

DAG_ID: Final = "airflow_dag_id"
TASK_ID: Final = "airflow_task_id"
RUN_ID: Final = "airflow_run_id"
MAP_INDEX: Final = "airflow_map_index"
REAP: Final = "airflow_jobflow_reap"
DEPLOYMENT: Final = "airflow_jobflow_deployment"

ARGUMENT: Final = "--jobflow_owner"
"""The argument of a Glue job run that carries its owner, because runs have no tags."""

MAX_TAGS: Final = 50
"""The most tags that AWS allows on one resource."""

MAX_TAG_VALUE: Final = 256
"""The most characters that AWS allows in the value of a tag."""

_JOB_NAME: Final = re.compile(
    r".*-(?P<group>[0-9a-f]{10})-t[0-9]+m[0-9]+c[0-9]+-[0-9a-f]{10}(-[a-z]?[0-9]+)*(-[cimt]+)?", re.DOTALL
)
_PUNCTUATION: Final = frozenset(" _.:/=+-@")
_HASHED: Final = re.compile(r"sha256-[0-9a-f]{64}")
_MEMBERS: Final = ("dag", "task", "run", "map", "reap", "deployment")


def job_group(dag_id: str, task_id: str, run_id: str, map_index: int = -1, deployment: str = "") -> str:
    """Return the group of all jobs that one task instance starts, in all of its tries.

    :param dag_id, task_id, run_id: of the task instance.
    :param map_index: of a mapped task. Default -1: not mapped.
    :param deployment: ``[jobflow] deployment_id``: two deployments in one account may have the same DAGs and runs.
        Default empty: none is set.
    """
    members: list[str | int] = [dag_id, task_id, run_id, map_index]
    return _digest([*members, deployment] if deployment else members)


def attempt_token(ti_id: str, attempt: int) -> str:
    """Return the token of one attempt to start a job.

    :param ti_id: Airflow's id of the task instance, which changes with each retry, clear and re-creation.
    :param attempt: counts the attempts within a try, from 1.
    """
    return _digest([str(ti_id), attempt])


def _digest(members: list[str | int]) -> str:
    # JSON is unambiguous: different lists have different texts, whatever characters their members have.
    return hashlib.sha256(json.dumps(members).encode()).hexdigest()[:DIGITS]


def group_in_name(job_name: str) -> str | None:
    """Return the group in the name of a Batch job; None if the name is not one of ours.

    Our names are ``<job_name>-<group>-t<try_number>m<max_tries>c<clear_number>-<attempt token>``. Numbers may follow,
    each with or without a letter before it, and then the history of an item, see ``jobs.changes``.

    :param job_name: the name.
    """
    found = _JOB_NAME.fullmatch(job_name)
    return found["group"] if found else None


def tag_value(value: str) -> str:
    """Return a value if AWS allows it in a tag, otherwise ``sha256-`` and its hash.

    :param value: any text.
    """
    allowed = (
        len(value) <= MAX_TAG_VALUE
        and value == value.strip()
        and not value.lower().startswith("aws:")
        and not is_hashed(value)  # otherwise it would equal the tag of the value with this hash
        and all(each in _PUNCTUATION or unicodedata.category(each)[0] in "LN" for each in value)
    )
    return value if allowed else f"sha256-{hashlib.sha256(value.encode(errors='surrogatepass')).hexdigest()}"


def is_hashed(value: str) -> bool:
    """Return whether a tag has the hash of a value instead of the value.

    :param value: of the tag.
    """
    return _HASHED.fullmatch(value) is not None


@dataclass(frozen=True, slots=True)
class Owner:
    """The task instance that waits for a job.

    :param dag_id, task_id, run_id: Airflow's ids; hashed if they were read from tags and AWS does not allow them there.
    :param map_index: of a mapped task. Default -1: not mapped.
    :param reap: whether the orphan reaper may stop the job. False for jobs that no task waits for, that may outlive a
        kill, or that others have joined. Default True.
    :param deployment: ``[jobflow] deployment_id`` of the Airflow that started the job. Default empty: none is set.
    """

    dag_id: str
    task_id: str
    run_id: str
    map_index: int = -1
    reap: bool = True
    deployment: str = ""

    @property
    def group(self) -> str:
        """The group of the owner's jobs. Meaningless if an id or the deployment is hashed."""
        return job_group(*self.task_instance, self.deployment)

    @property
    def hashed(self) -> bool:
        """Whether an id is hashed, so that the task instance cannot be identified."""
        return any(is_hashed(each) for each in (self.dag_id, self.task_id, self.run_id))

    @property
    def task_instance(self) -> tuple[str, str, str, int]:
        """The identity of the task instance in Airflow, the same in all of its tries."""
        return self.dag_id, self.task_id, self.run_id, self.map_index

    def __str__(self) -> str:
        mapped = "" if self.map_index < 0 else f"[{self.map_index}]"
        return f"{self.dag_id}.{self.task_id}{mapped} of run {self.run_id}"

    def is_of(self, deployment: str) -> bool:
        """Return whether the owner belongs to a deployment.

        :param deployment: its ``[jobflow] deployment_id``; empty if none is set.
        """
        return self.deployment in (deployment, tag_value(deployment))

    def tags(self) -> dict[str, str]:
        """Return the owner as tags for a Batch job or an ECS task. Values that AWS does not allow are hashed."""
        tags = {
            DAG_ID: tag_value(self.dag_id),
            TASK_ID: tag_value(self.task_id),
            RUN_ID: tag_value(self.run_id),
            MAP_INDEX: str(self.map_index),
        }
        if self.reap:
            tags[REAP] = "true"
        if self.deployment:
            tags[DEPLOYMENT] = tag_value(self.deployment)
        return tags

    @classmethod
    def from_tags(cls, tags: Mapping[str, str]) -> Owner | None:
        """Return the owner that a job's tags name; None if they name none or cannot be read.

        :param tags: names and values; other tags are ignored.
        """
        ids = [tags.get(name) for name in (DAG_ID, TASK_ID, RUN_ID)]
        map_index = tags.get(MAP_INDEX, "")
        if not all(isinstance(each, str) and each for each in ids) or not re.fullmatch(r"-1|[0-9]{1,9}", map_index):
            return None
        dag_id, task_id, run_id = (str(each) for each in ids)
        return cls(dag_id, task_id, run_id, int(map_index), tags.get(REAP) == "true", tags.get(DEPLOYMENT, ""))

    def argument(self, **more: str | int) -> str:
        """Return the owner as the value of `ARGUMENT`: compact JSON that also has the group.

        :param more: additional members, such as ``attempt``.
        :raises ValueError: one has the name of a member of the owner.
        """
        if taken := sorted(set(more).intersection(_MEMBERS)):
            raise ValueError(f"{ARGUMENT} already has members with these names: {', '.join(taken)}")
        values = (self.dag_id, self.task_id, self.run_id, self.map_index, self.reap, self.deployment)
        members = {**dict(zip(_MEMBERS, values, strict=True)), "group": self.group, **more}
        return json.dumps(members, separators=(",", ":"))

    @classmethod
    def from_argument(cls, text: str) -> Owner | None:
        """Return the owner that the value of `ARGUMENT` names; None if it names none or cannot be read.

        :param text: the value; any text, because anyone who starts a run can set it.
        """
        members = read_argument(text)
        ids = [members.get(name) for name in ("dag", "task", "run")]
        map_index, deployment = members.get("map"), members.get("deployment", "")
        if not all(isinstance(each, str) and each for each in ids) or not isinstance(deployment, str):
            return None
        if type(map_index) is not int or map_index < -1:  # a bool is an int too
            return None
        dag_id, task_id, run_id = (str(each) for each in ids)
        return cls(dag_id, task_id, run_id, map_index, members.get("reap") is True, deployment)


def read_argument(text: str) -> dict[str, Any]:
    """Return the members of the value of `ARGUMENT`, among them ``group``; none if it cannot be read.

    :param text: the value; any text, because anyone who starts a run can set it.
    """
    try:
        members = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return {}
    return members if isinstance(members, dict) else {}


def with_owner_tags(user_tags: Mapping[str, str], owner_tags: Mapping[str, str]) -> tuple[dict[str, str], bool]:
    """Return a job's tags, and whether the owner's are among them.

    :param user_tags: the user's own. They override the owner's, so that a user can set ``airflow_jobflow_reap`` to
        another value and keep the reaper away.
    :param owner_tags: from ``Owner.tags``. All of them are omitted if both together exceed AWS's limit of 50.
    """
    tags = {**owner_tags, **user_tags}
    return (tags, True) if len(tags) <= MAX_TAGS else (dict(user_tags), False)
