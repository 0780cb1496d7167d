"""The containers of a Batch job, wherever its kind keeps them, and where they log. Pure.

- A plain job has one, without a name, in ``container``.
- One with ``ecsProperties`` has several there; only there does Batch say which are essential.
- One on EKS has those of its pod in ``eksProperties``, of which all are essential, and init containers.
- A multi-node job is its main node; its own ``container`` is missing, and its ``nodeProperties`` say what it runs.

How the containers of an attempt ended is in ``attempts``, on EKS in ``eksAttempts``, by their names.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from airflow_jobflow.jobs.model import LogStream

Json = Mapping[str, Any]

FAILED = "FAILED"

ENDED = ("SUCCEEDED", FAILED)

ATTEMPT = "attempt"
"""The member of a pod's container with the attempt it belongs to, which tells where it logs."""

DEFAULT_LOG_GROUP = "/aws/batch/job"
"""Where Batch logs unless the job definition says otherwise."""

POD_LOGS = "/aws/containerinsights/{cluster}/application"
"""Where Container Insights, which an EKS cluster may run, puts what pods write."""

POD_STREAM = "{node}-application.var.log.containers.{pod}_{namespace}_{container}-{container_id}.log"


def names(definition: Json) -> list[str]:
    """Return the names of the containers of a job definition, in order; that of a plain job has none.

    :param definition: of a DescribeJobDefinitions response.
    """
    main = _main_node(definition)
    pod = main.get("eksProperties", {}).get("podProperties", {})
    containers = [*_containers(main.get("ecsProperties", {}).get("taskProperties", [])), *pod.get("containers", [])]
    return [each["name"] for each in containers if "name" in each]


def attempts(job: Json) -> Sequence[Json]:
    """Return the attempts of a job that have ended. On EKS, the one that runs is listed too."""
    if job.get("attempts"):
        return list(job["attempts"])
    return [each for each in job.get("eksAttempts") or () if job["status"] in ENDED or "stoppedAt" in each]


def read(job: Json) -> tuple[Sequence[Json], Collection[str]]:
    """Return the containers of a job in the order of their definition, and the names of the essential ones.

    :param job: of a DescribeJobs or ListJobs response, or of an event.
    """
    if job.get("container"):
        return [job["container"]], ()
    # An attempt of a job that has not ended is not the one that counts.
    last = [{}, *attempts(job)][-1] if job["status"] in ENDED else {}
    defined = _main_node(job)
    if "eksProperties" in defined or "containers" in last:
        return _of_pod(
            defined.get("eksProperties", {}).get("podProperties", {}), last, is_failed=job["status"] == FAILED
        )
    tasks = defined.get("ecsProperties", {}).get("taskProperties", [])
    if tasks or "taskProperties" in last:
        containers = _containers(tasks)
        essential = [each.get("name", "") for each in containers if each.get("essential", True)]
        return _joined(containers, _containers(last.get("taskProperties", []))), essential
    if last.get("container"):
        logging = {name: each for name, each in defined.get("container", {}).items() if name == "logConfiguration"}
        return [{**logging, **last["container"]}], ()
    return [], ()


def _of_pod(pod: Json, last: Json, *, is_failed: bool) -> tuple[Sequence[Json], Collection[str]]:
    """Return the containers of a pod; if init containers have failed, only these.

    The others then say only that they wait for them.
    """
    containers = _joined(pod.get("containers", []), last.get("containers", []))
    inits = _joined(pod.get("initContainers", []), last.get("initContainers", []))
    failed = [each for each in inits if each.get("exitCode") or (each.get("reason") and each.get("exitCode") is None)]
    counted = failed if failed and is_failed else containers
    return [{**each, ATTEMPT: last} for each in counted], ()


def _main_node(job: Json) -> Json:
    """Return what says how a job's containers are defined: of a multi-node job its main node's group."""
    nodes = job.get("nodeProperties") or {}
    groups: Sequence[Json] = nodes.get("nodeRangeProperties", [])
    main = nodes.get("mainNode", 0)
    return next((group for group in groups if _includes(group.get("targetNodes", ""), main)), job)


def _includes(nodes: str, node: int) -> bool:
    """Return whether a range of nodes, ``2``, ``0:3``, ``:3`` or ``4:``, includes one."""
    first, colon, last = nodes.partition(":")
    try:
        lowest = int(first or 0)
        return lowest <= node <= (int(last) if last else node if colon else lowest)
    except ValueError:
        return False


def _containers(tasks: Sequence[Json]) -> list[Json]:
    return [container for task in tasks for container in task.get("containers", [])]


def _joined(defined: Sequence[Json], ended: Sequence[Json]) -> list[Json]:
    """Return containers as they are defined, with how they ended; those that are not defined as they ended."""
    by_name = {each.get("name"): each for each in ended}
    names = {each.get("name") for each in defined}
    joined: list[Json] = [{**by_name.get(each.get("name"), {}), **each} for each in defined]
    return joined + [each for each in ended if each.get("name") not in names]


def log(container: Json, region: str | None) -> LogStream | None:
    """Return where a container logs; None if that is not known.

    :param container: as ``read`` returned it.
    :param region: the job's region.
    """
    if ATTEMPT in container:
        return _pod_log(container, container[ATTEMPT])
    stream = container.get("logStreamName")
    if not stream:
        return None
    options = container.get("logConfiguration", {}).get("options", {})
    logs_in = options.get("awslogs-region")
    elsewhere = logs_in if logs_in != region else None
    return LogStream(options.get("awslogs-group", DEFAULT_LOG_GROUP), stream, elsewhere)


def _pod_log(container: Json, attempt: Json) -> LogStream | None:
    """Return where Container Insights puts what a container on EKS writes. Batch itself does not say where."""
    where = {
        "cluster": attempt.get("eksClusterArn", "").rpartition("/")[2],
        "node": attempt.get("nodeName"),
        "pod": attempt.get("podName"),
        "namespace": attempt.get("podNamespace"),
        "container": container.get("name"),
        "container_id": container.get("containerID", "").rpartition("/")[2],  # some have containerd:// before it
    }
    if not all(where.values()):
        return None
    return LogStream(POD_LOGS.format(**where), POD_STREAM.format(**where))
