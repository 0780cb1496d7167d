"""The containers of a Batch job of any kind, and where they log. Pure.

- A plain job has one container, without a name, in ``container``.
- A job with ``ecsProperties`` has several containers there. Only there does Batch say which are essential.
- A job on EKS has the containers of its pod, all of them essential, and init containers in ``eksProperties``.
- A multi-node job has no ``container``. Its ``nodeProperties`` define its nodes, of which the main node counts. Ranges
  of nodes may be nested; the narrowest one applies.

The results of an attempt's containers are in ``attempts``, or ``eksAttempts`` on EKS, by name.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from airflow_jobflow.jobs.environment import variables
from airflow_jobflow.jobs.model import LogStream

Json = Mapping[str, Any]

FAILED = "FAILED"

ENDED = ("SUCCEEDED", FAILED)

ATTEMPT = "attempt"
"""The member of a pod's container that this module adds: its attempt, which determines where it logs."""

AWSLOGS = "awslogs"
"""The log driver that writes to CloudWatch Logs."""

DEFAULT_LOG_GROUP = "/aws/batch/job"
"""Where Batch logs unless the job definition says otherwise."""

POD_LOGS = "/aws/containerinsights/{cluster}/application"
"""The log group of pods, if the EKS cluster runs Container Insights."""

GIB_PER_UNIT = {"Mi": 1 / 1024, "Gi": 1.0}
"""GiB per unit of memory in a pod's ``resources``; Batch takes no other units."""

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
    """Return the attempts of a job that have ended. On EKS, AWS lists the running one too.

    :param job: of a DescribeJobs response.
    """
    if job.get("attempts"):
        return list(job["attempts"])
    return [each for each in job.get("eksAttempts") or () if job["status"] in ENDED or "stoppedAt" in each]


def last_attempt(job: Json) -> Json:
    """Return the attempt that counts: of a job that has ended its last one, else the running one, if AWS lists it.

    :param job: of a DescribeJobs response.
    """
    if job["status"] in ENDED:
        return [{}, *attempts(job)][-1]
    return next((each for each in job.get("eksAttempts") or () if "stoppedAt" not in each), {})


def details(job: Json) -> dict[str, Any] | None:
    """Return which node of a multi-node job is the main one, or which pod ran a job on EKS; None for other jobs.

    :param job: of a DescribeJobs response.
    """
    nodes = job.get("nodeProperties") or {}
    if "mainNode" in nodes and "nodeDetails" not in job:
        return {"main_node": nodes["mainNode"], "nodes": nodes.get("numNodes")}
    attempt, pod = last_attempt(job), _main_node(job).get("eksProperties", {}).get("podProperties", {})
    found = {
        "cluster": attempt.get("eksClusterArn", "").rpartition("/")[2],
        "namespace": attempt.get("podNamespace") or pod.get("metadata", {}).get("namespace"),
        "pod": attempt.get("podName") or pod.get("podName"),
        "node": attempt.get("nodeName") or pod.get("nodeName"),
    }
    return {name: value for name, value in found.items() if value} if found["pod"] else None


def read(job: Json) -> tuple[Sequence[Json], Collection[str]]:
    """Return the containers of a job in the order of their definition, and the names of the essential ones.

    :param job: of a DescribeJobs or ListJobs response, or of an event.
    """
    if job.get("container"):
        return [job["container"]], ()
    last, defined = last_attempt(job), _main_node(job)
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


def resources(job: Json) -> dict[str, float]:
    """Return the vCPUs, GiB and GPUs of a job's containers together, as far as the job says; empty if it does not.

    :param job: of a DescribeJobs response.
    """
    amounts = dict.fromkeys(("vcpu", "gib", "gpu"), 0.0)
    for definition, count in _nodes(job):
        tasks = (definition.get("ecsProperties") or {}).get("taskProperties", [])
        pod = (definition.get("eksProperties") or {}).get("podProperties", {})
        for container in (definition.get("container") or {}, *_containers(tasks), *pod.get("containers", ())):
            for unit, amount in _amounts(container).items():
                amounts[unit] += amount * count
    return {unit: amount for unit, amount in amounts.items() if amount}


def _nodes(job: Json) -> list[tuple[Json, int]]:
    """Return the properties of a job's containers, and how many nodes run them; of a multi-node job, for each group."""
    nodes = job.get("nodeProperties") or {}
    if "numNodes" not in nodes:
        return [(job, 1)]
    of_each = [_range_of(nodes, node) for node in range(nodes["numNodes"])]
    return [(group, sum(each is group for each in of_each)) for group in nodes.get("nodeRangeProperties", [])]


def _amounts(container: Json) -> dict[str, float]:
    """Return the resources of one container; on EKS what it requests, which is what Kubernetes reserves for it."""
    requirements = {each.get("type"): each.get("value") for each in container.get("resourceRequirements", [])}
    of_pod = container.get("resources", {})
    reserved = {**of_pod.get("limits", {}), **of_pod.get("requests", {})}
    memory = str(reserved.get("memory", ""))
    given = {
        "vcpu": requirements.get("VCPU") or container.get("vcpus") or reserved.get("cpu"),
        "gib": requirements.get("MEMORY") or container.get("memory") or memory[:-2],
        "gpu": requirements.get("GPU") or reserved.get("nvidia.com/gpu"),
    }
    amounts = {unit: _number(value) for unit, value in given.items()}
    amounts["gib"] *= GIB_PER_UNIT.get(memory[-2:], GIB_PER_UNIT["Mi"])
    return amounts


def _number(value: object) -> float:
    try:
        return float(str(value or 0))
    except ValueError:
        return 0.0


def variable(job: Json, name: str) -> str | None:
    """Return the value of an environment variable of a job's container; None if it has none.

    :param job: of a DescribeJobs response.
    :param name: of the variable.
    """
    return variables(job.get("container") or {}).get(name)


def _of_pod(pod: Json, last: Json, *, is_failed: bool) -> tuple[Sequence[Json], Collection[str]]:
    """Return the containers of a pod; if init containers have failed, only these, because the others never ran."""
    containers = _joined(pod.get("containers", []), last.get("containers", []))
    inits = _joined(pod.get("initContainers", []), last.get("initContainers", []))
    failed = [each for each in inits if each.get("exitCode") or (each.get("reason") and each.get("exitCode") is None)]
    counted = failed if failed and is_failed else containers
    return [{**each, ATTEMPT: last} for each in counted], ()


def _main_node(job: Json) -> Json:
    """Return what defines a job's containers: for a multi-node job the node range of its main node."""
    nodes = job.get("nodeProperties") or {}
    return _range_of(nodes, nodes.get("mainNode", 0)) or job


def _range_of(nodes: Json, node: int) -> Json | None:
    """Return the properties that apply to a node: those of the narrowest range that includes it; None if none does."""
    ranges = [(_bounds(each.get("targetNodes", "")), each) for each in nodes.get("nodeRangeProperties", [])]
    including = [(last - first, each) for (first, last), each in ranges if first <= node <= last]
    return min(including, key=lambda each: each[0], default=(0, None))[1]


def _bounds(nodes: str) -> tuple[float, float]:
    """Return the first and the last node of a range: ``2``, ``0:3``, ``:3`` or ``4:``. An invalid one is empty."""
    first, colon, last = nodes.partition(":")
    try:
        lowest = int(first or 0)
        return lowest, int(last) if last else float("inf") if colon else lowest
    except ValueError:
        return 0, -1


def _containers(tasks: Sequence[Json]) -> list[Json]:
    return [container for task in tasks for container in task.get("containers", [])]


def _joined(defined: Sequence[Json], ended: Sequence[Json]) -> list[Json]:
    """Return the containers of a definition with their results, followed by those that only have results."""
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
    stream, configuration = container.get("logStreamName"), container.get("logConfiguration", {})
    if not stream or configuration.get("logDriver", AWSLOGS) != AWSLOGS:
        return None
    options = configuration.get("options", {})
    logs_in = options.get("awslogs-region")
    elsewhere = logs_in if logs_in != region else None
    return LogStream(options.get("awslogs-group", DEFAULT_LOG_GROUP), stream, elsewhere)


def _pod_log(container: Json, attempt: Json) -> LogStream | None:
    """Return where Container Insights stores the output of a container on EKS. Batch itself does not say."""
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
