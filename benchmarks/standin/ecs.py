"""Amazon ECS: DescribeTasks for scripted Fargate tasks, and their task definition."""

from __future__ import annotations

import json
from typing import Any, ClassVar

from benchmarks.figures import Scenario
from benchmarks.standin.script import ACCOUNT, REGION, Answer, Script, Service, parts

ARN = f"arn:aws:ecs:{REGION}:{ACCOUNT}"
CLUSTER = "nightly"
DEFINITION = f"{ARN}:task-definition/nightly-model:17"
MOST = 100
"""Maximum number of tasks in a DescribeTasks call."""

IMAGE = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/nightly-model:2026.3.1"

STOPPED = ("DEPROVISIONING", "STOPPED")
"""The members of a task after its containers have ended."""


class Ecs(Service):
    """Fargate tasks of one cluster or several, which all start with the clock."""

    PHASES: ClassVar = ((0.0, "PROVISIONING"), (0.05, "PENDING"), (0.1, "RUNNING"), (0.95, "DEPROVISIONING"))
    ENDS: ClassVar = ("STOPPED", "STOPPED")

    def __init__(self, scenario: Scenario) -> None:
        super().__init__(scenario)
        self.calls = {"DescribeTasks": self._describe, "DescribeTaskDefinition": self._definition}
        more = [f"{CLUSTER}-{number:03}" for number in range(1, scenario.scopes)]
        self._clusters = [CLUSTER, *more]
        for number in range(scenario.waits):
            cluster = self._clusters[number % len(self._clusters)]
            arn = f"{ARN}:task/{cluster}/{self.rng.getrandbits(128):032x}"
            self.add(arn, arn, cluster)

    def _describe(self, request: dict[str, Any], now: float) -> Answer:
        cluster = request.get("cluster", "default").rpartition("/")[2]
        if cluster not in self._clusters:
            return Answer.refusal("ClusterNotFoundException", "Cluster not found.")
        arns = [each if ":" in each else f"{ARN}:task/{cluster}/{each}" for each in request["tasks"]]
        if len(arns) > MOST:
            return Answer.refusal("InvalidParameterException", "Tasks cannot be more than 100 elements.")
        known, unknown = parts(self.jobs, arns)
        failures = json.dumps([{"arn": arn, "reason": "MISSING"} for arn in unknown]).encode()
        return Answer(b'{"tasks": ' + self.listed(known, now) + b', "failures": ' + failures + b"}", len(arns))

    def _definition(self, request: dict[str, Any], now: float) -> Answer:  # noqa: ARG002
        if request["taskDefinition"] != DEFINITION:
            return Answer.refusal("ClientException", "Unable to describe task definition.")
        log = {"awslogs-group": "/ecs/nightly", "awslogs-stream-prefix": "model", "awslogs-region": REGION}
        container = {
            "name": "model",
            "image": IMAGE,
            "cpu": 1024,
            "memory": 2048,
            "essential": True,
            "environment": [{"name": "MODEL_VERSION", "value": "2026.3.1"}],
            "logConfiguration": {"logDriver": "awslogs", "options": log},
        }
        definition = {
            "taskDefinitionArn": DEFINITION,
            "containerDefinitions": [container],
            "family": "nightly-model",
            "networkMode": "awsvpc",
            "revision": 17,
            "status": "ACTIVE",
            "compatibilities": ["EC2", "FARGATE"],
            "requiresCompatibilities": ["FARGATE"],
            "cpu": "1024",
            "memory": "2048",
        }
        return Answer(json.dumps({"taskDefinition": definition, "tags": []}).encode())

    def detail(self, job: Script, status: str) -> dict[str, Any]:
        """Return a task as in DescribeTasks, in about 2.5 KB."""
        task_id = job.name.rpartition("/")[2]
        began, ran = job.began, job.began + 0.1 * job.seconds
        address = f"10.0.{int(task_id[:2], 16)}.{int(task_id[2:4], 16)}"
        network = [
            {"name": "subnetId", "value": f"subnet-{task_id[:17]}"},
            {"name": "networkInterfaceId", "value": f"eni-{task_id[:17]}"},
            {"name": "macAddress", "value": "0a:58:a9:fe:ac:02"},
            {"name": "privateDnsName", "value": f"ip-{address.replace('.', '-')}.{REGION}.compute.internal"},
            {"name": "privateIPv4Address", "value": address},
        ]
        attachment = f"{task_id[:8]}-{task_id[8:12]}-4{task_id[13:16]}-a{task_id[17:20]}-{task_id[20:]}"
        container: dict[str, Any] = {
            "containerArn": f"{ARN}:container/{job.scope}/{task_id}/{attachment}",
            "taskArn": job.name,
            "name": "model",
            "image": IMAGE,
            "runtimeId": f"{task_id}-0527074092",
            "lastStatus": {"DEPROVISIONING": "STOPPED", "PROVISIONING": "PENDING"}.get(status, status),
            "networkBindings": [],
            "networkInterfaces": [{"attachmentId": attachment, "privateIpv4Address": address}],
            "healthStatus": "UNKNOWN",
            "managedAgents": [],
            "cpu": "1024",
            "memory": "2048",
        }
        override = {
            "name": "model",
            "command": ["python", "-m", "nightly_model", "--part", task_id, "--input", "s3://a-bucket/input/"],
            "environment": [
                {"name": "OUTPUT", "value": f"s3://a-bucket/output/{task_id}/"},
                {"name": "LOG_LEVEL", "value": "INFO"},
            ],
        }
        detail: dict[str, Any] = {
            "attachments": [
                {
                    "id": attachment,
                    "type": "ElasticNetworkInterface",
                    "status": "DELETED" if status in STOPPED else "ATTACHED",
                    "details": network,
                }
            ],
            "attributes": [{"name": "ecs.cpu-architecture", "value": "x86_64"}],
            "availabilityZone": f"{REGION}a",
            "capacityProviderName": "FARGATE_SPOT",
            "clusterArn": f"{ARN}:cluster/{job.scope}",
            "connectivity": "CONNECTED",
            "connectivityAt": round(began + 0.05 * job.seconds, 3),
            "containers": [container],
            "cpu": "1024",
            "createdAt": round(began, 3),
            "desiredStatus": "STOPPED" if status in STOPPED else "RUNNING",
            "enableExecuteCommand": False,
            "ephemeralStorage": {"sizeInGiB": 20},
            "fargateEphemeralStorage": {"sizeInGiB": 20},
            "group": "family:nightly-model",
            "healthStatus": "UNKNOWN",
            "lastStatus": status,
            "launchType": "FARGATE",
            "memory": "2048",
            "overrides": {"containerOverrides": [override], "inferenceAcceleratorOverrides": []},
            "platformFamily": "Linux",
            "platformVersion": "1.4.0",
            "startedBy": f"jobflow-{task_id[:8]}",
            "tags": [],
            "taskArn": job.name,
            "taskDefinitionArn": DEFINITION,
            "version": 3,
        }
        if status in ("RUNNING", *STOPPED):
            container["imageDigest"] = f"sha256:{task_id}{task_id}"
            pulled = {"pullStartedAt": round(began + 0.05 * job.seconds, 3), "pullStoppedAt": round(ran, 3)}
            detail |= {**pulled, "startedAt": round(ran, 3)}
        if status in STOPPED:
            container["exitCode"] = int(job.fails)
            detail |= {
                "stopCode": "EssentialContainerExited",
                "stoppedReason": "Essential container in task exited",
                "stoppingAt": round(began + 0.95 * job.seconds, 3),
                "executionStoppedAt": round(began + 0.95 * job.seconds, 3),
            }
        if status == "STOPPED":
            detail["stoppedAt"] = round(job.ends, 3)
        return detail
