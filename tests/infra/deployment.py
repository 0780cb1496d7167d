"""The template on the local AWS: deployed by moto's CloudFormation, and completed where moto lacks features.

The gaps of moto 5.2.5, and how they are filled:

- It has no ``AWS::Glue::Database``, ``Crawler`` and ``Job``, and no ``AWS::SQS::QueuePolicy``. Their properties are
  passed to the calls of the services, which have members with the same names.
- It keeps only the containers of a task definition, which is registered again completely. It drops the capacity
  providers of a cluster, which are set by a call, and the managed policies of a role, which are not needed here.
- It requires a service role for a compute environment, where AWS uses its service-linked role, so the environment gets
  one.
- It replaces a reference to a resource that it does not support by None: ``Ref`` and ``Sub`` are resolved here.
"""

from __future__ import annotations

import copy
import json
import re
import warnings
from pathlib import Path
from typing import Any, Final

import cfnlint.decode  # type: ignore[import-untyped]

from airflow_jobflow.local import LocalAws
from airflow_jobflow.local.client import REGION

TEMPLATE: Final = Path(__file__).parents[2] / "infra" / "jobflow.yaml"
STACK: Final = "jobflow"
ARNS: Final = {
    "AWS::IAM::Role": "arn:aws:iam::{account}:role/{name}",
    "AWS::SQS::Queue": "arn:aws:sqs:{region}:{account}:{name}",
    "AWS::Events::Rule": "arn:aws:events:{region}:{account}:rule/{name}",
    "AWS::ECS::Cluster": "arn:aws:ecs:{region}:{account}:cluster/{name}",
    "AWS::S3::Bucket": "arn:aws:s3:::{name}",
}
"""The results of GetAtt for ``Arn``."""
NAMES: Final = {
    "AWS::Glue::Crawler": ["Name"],
    "AWS::Glue::Job": ["Name"],
    "AWS::Glue::Database": ["DatabaseInput", "Name"],
}
"""The paths in the template with the results of Ref for resources that moto does not support."""


def template() -> dict[str, Any]:
    """Return the template with its short forms expanded."""
    decoded, problems = cfnlint.decode.decode(str(TEMPLATE))
    assert problems == []
    plain: dict[str, Any] = json.loads(json.dumps(decoded, default=str))
    return plain


class Stack:
    """The deployed template.

    :param aws: the local AWS.
    """

    def __init__(self, aws: LocalAws) -> None:
        self.aws = aws
        self.account = aws.account_id
        self.template = template()
        ec2 = aws.client("ec2")
        self.subnets = [subnet["SubnetId"] for subnet in ec2.describe_subnets()["Subnets"]][:2]
        groups = [group["GroupId"] for group in ec2.describe_security_groups()["SecurityGroups"]][:1]
        given = {"Subnets": ",".join(self.subnets), "SecurityGroups": ",".join(groups)}
        defaults = {name: said["Default"] for name, said in self.template["Parameters"].items() if "Default" in said}
        self.parameters = {**defaults, **given}
        cloudformation = aws.client("cloudformation")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Tried to parse AWS::(Glue|SQS)::", UserWarning)
            cloudformation.create_stack(
                StackName=STACK,
                TemplateBody=json.dumps(self._for_moto()),
                Capabilities=["CAPABILITY_IAM"],
                Parameters=[{"ParameterKey": name, "ParameterValue": value} for name, value in given.items()],
            )
            [described] = cloudformation.describe_stacks(StackName=STACK)["Stacks"]
            made = cloudformation.describe_stack_resources(StackName=STACK)["StackResources"]
        self.status = described["StackStatus"]
        self.outputs = {each["OutputKey"]: each["OutputValue"] for each in described["Outputs"]}
        self.ids = {
            each["LogicalResourceId"]: each["PhysicalResourceId"] for each in made if "LogicalResourceId" in each
        }
        self._complete()

    def _for_moto(self) -> dict[str, Any]:
        """Return the template with a service role for the compute environment."""
        changed = copy.deepcopy(self.template)
        trust: dict[str, Any] = {"Version": "2012-10-17", "Statement": []}
        changed["Resources"]["ServiceRole"] = {
            "Type": "AWS::IAM::Role",
            "Properties": {"AssumeRolePolicyDocument": trust},
        }
        environment = changed["Resources"]["ComputeEnvironment"]["Properties"]
        environment["ServiceRole"] = {"Fn::GetAtt": ["ServiceRole", "Arn"]}
        return changed

    def _complete(self) -> None:
        """Create what moto's CloudFormation cannot create."""
        glue, sqs = self.aws.client("glue"), self.aws.client("sqs")
        glue.create_database(**self.properties("Database"))
        glue.create_crawler(**self.properties("Crawler"))
        glue.create_job(**self.properties("Job"))
        for name in self.of_type("AWS::SQS::QueuePolicy"):
            said = self.properties(name)
            for url in said["Queues"]:
                sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": json.dumps(said["PolicyDocument"])})
        ecs, cluster = self.aws.client("ecs"), self.properties("Cluster")
        providers = cluster["CapacityProviders"]
        ecs.put_cluster_capacity_providers(
            cluster=cluster["ClusterName"], capacityProviders=providers, defaultCapacityProviderStrategy=[]
        )
        ecs.register_task_definition(**_first_letters_lowered(self.properties("ProcessItem")))

    def of_type(self, kind: str) -> list[str]:
        """Return the logical names of all resources of a type."""
        return [name for name, resource in self.template["Resources"].items() if resource["Type"] == kind]

    def arn(self, name: str) -> str:
        """Return the ARN of a resource."""
        kind = self.template["Resources"][name]["Type"]
        physical = self._referred(name).rpartition("/")[2]
        return ARNS[kind].format(account=self.account, region=REGION, name=physical)

    def properties(self, name: str) -> dict[str, Any]:
        """Return the properties of a resource, as CloudFormation would pass them to the service."""
        resolved: dict[str, Any] = self._resolved(self.template["Resources"][name]["Properties"])
        return resolved

    def _resolved(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._resolved(each) for each in value]
        if not isinstance(value, dict):
            return value
        match next(iter(value.items()), None):
            case ("Ref", str(name)):
                return self._referred(name)
            case ("Fn::GetAtt", [str(name), "Arn"]):
                return self.arn(name)
            case ("Fn::Sub", str(text)):
                return re.sub(r"\$\{([\w:.]+)\}", lambda found: self._substituted(found[1]), text)
        return {key: self._resolved(each) for key, each in value.items()}

    def _substituted(self, name: str) -> str:
        resource, _, attribute = name.partition(".")
        value = {"Fn::GetAtt": [resource, attribute]} if attribute else {"Ref": name}
        return str(self._resolved(value))

    def _referred(self, name: str) -> str:
        pseudo = {"AWS::Region": REGION, "AWS::AccountId": self.account, "AWS::Partition": "aws"}
        known = {**pseudo, **self.parameters, **self.ids}
        if name in known:
            return str(known[name])
        resource = self.template["Resources"][name]
        value = resource["Properties"]
        for key in NAMES[resource["Type"]]:
            value = value[key]
        return str(value)


def _first_letters_lowered(value: Any, *, names: bool = True) -> Any:
    """Return CloudFormation's members with the names of ECS's own API; keys of maps, such as a log's options, do not
    change.
    """
    if isinstance(value, list):
        return [_first_letters_lowered(each, names=names) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        (key[0].lower() + key[1:] if names else key): _first_letters_lowered(each, names=key != "Options")
        for key, each in value.items()
    }
