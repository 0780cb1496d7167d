"""Job definitions and task definitions in memory."""

from __future__ import annotations

from typing import Any

from airflow_jobflow.faults import CallError
from tests.unit.jobs.scripted_calls import ScriptedClient, refused


class Registered(ScriptedClient):
    """Definitions in memory, in the form of both services, and the names of all calls.

    :param added: members that AWS adds to every definition.
    """

    def __init__(self, **added: Any) -> None:
        self.calls: list[str] = []
        self.definitions: list[dict[str, Any]] = []
        self.tags: dict[str, dict[str, str]] = {}
        self.errors: dict[str, list[Exception]] = {}
        self.added = added

    def __call__(self, operation: str, **parameters: Any) -> Any:
        """Count the call, and fail if an error is set for it."""
        self.calls.append(operation)
        if errors := self.errors.get(operation):
            error = errors.pop(0)
            raise error if isinstance(error, CallError) else CallError.from_error(error, operation)
        return super().__call__(operation, **parameters)

    def add(self, request: dict[str, Any], tags: dict[str, str]) -> str:
        """Add a revision; its ARN."""
        name = request.get("jobDefinitionName") or request["family"]
        arn = f"arn:aws:x:eu-west-1:1:x-definition/{name}:{len(self.definitions) + 1}"
        self.definitions.append({**request, **self.added, "arn": arn, "name": name})
        self.tags[arn] = dict(tags)
        return arn

    def newest(self, name: str) -> dict[str, Any] | None:
        """The newest revision of a name, or the one with a number or an ARN."""
        found = [
            each for each in self.definitions if name in (each["name"], each["arn"], each["arn"].rpartition("/")[2])
        ]
        return found[-1] if found else None

    def describe_job_definitions(self, status: str, jobDefinitionName: str = "") -> Any:  # noqa: N803 -- boto3's
        """All revisions of a name."""
        assert status == "ACTIVE"
        names = (jobDefinitionName, "") if jobDefinitionName else ()
        found = [each for each in self.definitions if not names or each["name"] in names]
        return {
            "jobDefinitions": [
                {
                    **{name: value for name, value in each.items() if name not in ("arn", "name")},
                    "jobDefinitionArn": each["arn"],
                    "revision": int(each["arn"].rpartition(":")[2]),
                    "tags": self.tags[each["arn"]],
                }
                for each in found
            ]
        }

    def register_job_definition(self, tags: dict[str, str] | None = None, **request: Any) -> Any:
        """Add a revision."""
        return {"jobDefinitionArn": self.add(request, tags or {})}

    def describe_task_definition(self, taskDefinition: str, include: list[str]) -> Any:  # noqa: N803 -- boto3's
        """The newest revision of a family."""
        assert include == ["TAGS"]
        found = self.newest(taskDefinition)
        if found is None:
            raise refused("ClientException", "DescribeTaskDefinition", "Unable to describe task definition.")
        shown = {name: value for name, value in found.items() if name not in ("arn", "name")}
        tags = [{"key": key, "value": value} for key, value in self.tags[found["arn"]].items()]
        return {"taskDefinition": {**shown, "taskDefinitionArn": found["arn"]}, "tags": tags}

    def register_task_definition(self, tags: list[dict[str, str]] | None = None, **request: Any) -> Any:
        """Add a revision."""
        arn = self.add(request, {tag["key"]: tag["value"] for tag in tags or ()})
        return {"taskDefinition": {"taskDefinitionArn": arn}}

    def tag_resource(self, resourceArn: str, tags: Any) -> None:  # noqa: N803 -- boto3's
        """Set tags, in the form of either service."""
        self.tags[resourceArn] |= tags if isinstance(tags, dict) else {tag["key"]: tag["value"] for tag in tags}

    def list_task_definition_families(self, familyPrefix: str, status: str) -> Any:  # noqa: N803 -- boto3's
        """The families with a prefix."""
        assert status == "ACTIVE"
        names = {each["name"] for each in self.definitions}
        return {"families": sorted(name for name in names if name.startswith(familyPrefix))}

    def list_task_definitions(self, familyPrefix: str, status: str) -> Any:  # noqa: N803 -- boto3's
        """The revisions of a family."""
        assert status == "ACTIVE"
        return {"taskDefinitionArns": [each["arn"] for each in self.definitions if each["name"] == familyPrefix]}
