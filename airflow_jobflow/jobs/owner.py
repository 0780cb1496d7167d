"""Who owns a job: the identity that each job of ours carries, so that it can be found and judged without any record.

A job has two computed names. Its **group** is a hash of the Airflow deployment, DAG, run, task and map index: whoever
knows these finds all jobs of a task instance. Its **attempt token** is a hash of the task instance's id and a counter:
it differs for every attempt. The ``Owner`` says the same in readable form, as tags (Batch, ECS) or as one argument
(Glue job runs).

Invariants:

- Everything here is computed from its arguments. Nothing is random, and nothing depends on the process or the time.
- What is written can be read back, or reads as ``None``, or says that it was hashed. It is never read as another owner.
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
"""The argument of a Glue job run that carries its owner, for the tags of a Glue job are not those of its runs."""

MAX_TAGS: Final = 50
"""The most tags that AWS allows on one resource."""

MAX_TAG_VALUE: Final = 256
"""The most characters that AWS allows in the value of a tag."""

_JOB_NAME: Final = re.compile(
    r".*-(?P<group>[0-9a-f]{10})-t[0-9]+m[0-9]+c[0-9]+-[0-9a-f]{10}(-[a-z]?[0-9]+)*", re.DOTALL
)
_PUNCTUATION: Final = frozenset(" _.:/=+-@")
_HASHED: Final = re.compile(r"sha256-[0-9a-f]{64}")
_MEMBERS: Final = ("dag", "task", "run", "map", "reap", "deployment")


def job_group(dag_id: str, task_id: str, run_id: str, map_index: int = -1, deployment: str = "") -> str:
    """Return the group of all jobs that one task instance starts, in all of its tries.

    :param map_index: of a mapped task; -1 where the task is not mapped.
    :param deployment: ``[jobflow] deployment_id``: two deployments in one account may have the same DAGs and runs.
        Default empty, for the deployments that have none.
    """
    members: list[str | int] = [dag_id, task_id, run_id, map_index]
    return _digest([*members, deployment] if deployment else members)


def attempt_token(ti_id: str, attempt: int) -> str:
    """Return the token of one attempt to start a job.

    :param ti_id: Airflow's id of the task instance. Each retry, clear and re-creation has another.
    :param attempt: counts the attempts within a try, from 1.
    """
    return _digest([str(ti_id), attempt])


def _digest(members: list[str | int]) -> str:
    # JSON is unambiguous: no two lists have the same text, whatever characters their members hold.
    return hashlib.sha256(json.dumps(members).encode()).hexdigest()[:DIGITS]


def group_in_name(job_name: str) -> str | None:
    """Return the group in the name of a Batch job; None if it is not named as jobs of ours are.

    Ours are named ``<job_name>-<group>-t<try_number>m<max_tries>c<clear_number>-<attempt token>``, after which numbers
    may follow, each with a letter before it or not.
    """
    found = _JOB_NAME.fullmatch(job_name)
    return found["group"] if found else None


def tag_value(value: str) -> str:
    """Return a value as it is where AWS allows it in a tag, otherwise ``sha256-`` and its hash."""
    allowed = (
        len(value) <= MAX_TAG_VALUE
        and value == value.strip()
        and not value.lower().startswith("aws:")
        and not is_hashed(value)  # otherwise this value and the one with this hash would be written alike
        and all(each in _PUNCTUATION or unicodedata.category(each)[0] in "LN" for each in value)
    )
    return value if allowed else f"sha256-{hashlib.sha256(value.encode(errors='surrogatepass')).hexdigest()}"


def is_hashed(value: str) -> bool:
    """Return whether a tag holds the hash of a value instead of the value."""
    return _HASHED.fullmatch(value) is not None


@dataclass(frozen=True, slots=True)
class Owner:
    """The task instance that waits for a job.

    :param dag_id, task_id, run_id: as Airflow has them, or hashed where this was read from tags that AWS does not
        allow to hold them.
    :param map_index: of a mapped task; -1 where the task is not mapped.
    :param reap: whether the orphan reaper may stop the job. Not for jobs that nobody waits for, that outlive a kill on
        purpose, or that others have joined.
    :param deployment: ``[jobflow] deployment_id`` of the Airflow that started the job; empty for none.
    """

    dag_id: str
    task_id: str
    run_id: str
    map_index: int = -1
    reap: bool = True
    deployment: str = ""

    @property
    def group(self) -> str:
        """The group of the owner's jobs. Meaningless if one of the ids or the deployment is known by its hash only."""
        return job_group(*self.task_instance, self.deployment)

    @property
    def hashed(self) -> bool:
        """Whether one of the ids is known by its hash only, so that the task instance cannot be looked up."""
        return any(is_hashed(each) for each in (self.dag_id, self.task_id, self.run_id))

    @property
    def task_instance(self) -> tuple[str, str, str, int]:
        """What Airflow knows a task instance by, in all of its tries."""
        return self.dag_id, self.task_id, self.run_id, self.map_index

    def __str__(self) -> str:
        mapped = "" if self.map_index < 0 else f"[{self.map_index}]"
        return f"{self.dag_id}.{self.task_id}{mapped} of run {self.run_id}"

    def is_of(self, deployment: str) -> bool:
        """Return whether the owner belongs to a deployment.

        :param deployment: its ``[jobflow] deployment_id``; empty for the deployments that have none.
        """
        return self.deployment in (deployment, tag_value(deployment))

    def tags(self) -> dict[str, str]:
        """Return the owner as tags of a Batch job or an ECS task. Values that AWS does not allow are hashed."""
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

        :param tags: names and values. Others than the owner's are ignored.
        """
        ids = [tags.get(name) for name in (DAG_ID, TASK_ID, RUN_ID)]
        map_index = tags.get(MAP_INDEX, "")
        if not all(isinstance(each, str) and each for each in ids) or not re.fullmatch(r"-1|[0-9]{1,9}", map_index):
            return None
        dag_id, task_id, run_id = (str(each) for each in ids)
        return cls(dag_id, task_id, run_id, int(map_index), tags.get(REAP) == "true", tags.get(DEPLOYMENT, ""))

    def argument(self, **more: str | int) -> str:
        """Return the owner as the value of `ARGUMENT`: compact JSON that also holds the group.

        :param more: further members, such as ``attempt``.
        :raises ValueError: a member has the name of one of the owner's.
        """
        if taken := sorted(set(more).intersection(_MEMBERS)):
            raise ValueError(f"{ARGUMENT} has members of its own with these names: {', '.join(taken)}")
        values = (self.dag_id, self.task_id, self.run_id, self.map_index, self.reap, self.deployment)
        members = {**dict(zip(_MEMBERS, values, strict=True)), "group": self.group, **more}
        return json.dumps(members, separators=(",", ":"))

    @classmethod
    def from_argument(cls, text: str) -> Owner | None:
        """Return the owner that the value of `ARGUMENT` names; None if it names none or cannot be read."""
        members = read_argument(text)
        ids = [members.get(name) for name in ("dag", "task", "run")]
        map_index, deployment = members.get("map"), members.get("deployment", "")
        if not all(isinstance(each, str) and each for each in ids) or not isinstance(deployment, str):
            return None
        if type(map_index) is not int or map_index < -1:  # a bool is an int, too
            return None
        dag_id, task_id, run_id = (str(each) for each in ids)
        return cls(dag_id, task_id, run_id, map_index, members.get("reap") is True, deployment)


def read_argument(text: str) -> dict[str, Any]:
    """Return the members of the value of `ARGUMENT`, among them ``group``; none if it cannot be read.

    :param text: anything, for whoever starts a run can give it any value.
    """
    try:
        members = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return {}
    return members if isinstance(members, dict) else {}


def with_owner_tags(user_tags: Mapping[str, str], owner_tags: Mapping[str, str]) -> tuple[dict[str, str], bool]:
    """Return a job's tags, and whether the owner's are among them.

    :param user_tags: the user's own. They win over the owner's, so that a user can give ``airflow_jobflow_reap``
        another value and keep the reaper away.
    :param owner_tags: from ``Owner.tags``. They are left out, all of them, where AWS's limit of 50 does not hold both.
    """
    tags = {**owner_tags, **user_tags}
    return (tags, True) if len(tags) <= MAX_TAGS else (dict(user_tags), False)
