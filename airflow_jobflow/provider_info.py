"""What Airflow is told about this package."""

from __future__ import annotations

from typing import Any

BATCH = "AWS Batch (Jobflow)"
FARGATE = "AWS Fargate (Jobflow)"
GLUE = "AWS Glue (Jobflow)"

_OPTIONS: dict[str, tuple[str, str, str]] = {
    "describe_calls_per_second": (
        "float",
        "5.0",
        (
            "The most describe calls a second of a process for each service, connection and region. All waits share "
            "it, whatever cluster or Glue job they are about. One call describes up to 100 jobs."
        ),
    ),
    "poll_interval": (
        "float",
        "10.0",
        "Seconds between two looks at one job, where an operator or a sensor does not say.",
    ),
    "missing_grace": (
        "float",
        "300.0",
        "Seconds for which AWS may not know a job, as happens just after a submit, before the wait for it fails.",
    ),
    "denied_grace": (
        "float",
        "300.0",
        (
            "Seconds for which describe calls may be refused for lack of permission or credentials, as happens while "
            "a policy is replaced, before the wait fails. The job keeps running. 0 for at once."
        ),
    ),
    "request_timeout": (
        "float",
        "20.0",
        "Seconds after which a describe call that hangs is given up and made again.",
    ),
    "event_queue_url": (
        "string",
        "",
        (
            "The SQS queue that EventBridge fills with state changes of Batch, ECS and Glue jobs, so that a wait in "
            "the triggerer ends within a second of its job. The extra jobflow_event_queue_url of an AWS connection "
            "goes before it. Of this queue messages are deleted: nobody else can use it. Empty for none."
        ),
    ),
    "event_poll_interval": (
        "float",
        "300.0",
        "Seconds between two looks at a job that no event tells of, while the queue of events can be read.",
    ),
    "deployment_id": (
        "string",
        "",
        (
            "A name of this deployment of Airflow that no other deployment in the same AWS accounts has. Every job "
            "carries it: retries find only jobs of their own deployment, and the orphan reaper stops only these. "
            "Without it the reaper stops nothing: it only reports. If it changes, jobs that were started before are "
            "not found by their retries. Empty for none."
        ),
    ),
    "console_url": (
        "string",
        "",
        (
            "The URL of the pages of a local AWS, such as http://127.0.0.1:5000/jobflow-console, to which all links to "
            "the console then lead. Empty for the console of AWS."
        ),
    ),
    "deferrable": (
        "boolean",
        "True",
        "Whether operators and sensors wait in the triggerer, where they do not say.",
    ),
    "end_in_trigger": (
        "string",
        "auto",
        (
            "Whether a wait that succeeds ends in the triggerer, without a worker: auto, where nothing is lost by it "
            "(outlets, callbacks, listeners and the like need a worker), or never."
        ),
    ),
}


def get_provider_info() -> dict[str, Any]:
    """Describe the provider, as Airflow's provider_info schema wants it."""
    return {
        "package-name": "airflow-jobflow",
        "name": "Jobflow",
        "description": "Runs jobs on AWS Batch, Fargate and Glue and waits for thousands of them at almost no cost.",
        "integrations": [
            {"integration-name": name, "external-doc-url": url, "tags": ["aws"]}
            for name, url in (
                (BATCH, "https://aws.amazon.com/batch/"),
                (FARGATE, "https://aws.amazon.com/fargate/"),
                (GLUE, "https://aws.amazon.com/glue/"),
            )
        ],
        **{
            kind: [
                {"integration-name": BATCH, "python-modules": [f"airflow_jobflow.{kind}.batch"]},
                {"integration-name": FARGATE, "python-modules": [f"airflow_jobflow.{kind}.ecs"]},
                {"integration-name": GLUE, "python-modules": [f"airflow_jobflow.{kind}.glue"]},
            ]
            for kind in ("operators", "sensors")
        },
        "triggers": [
            {
                "integration-name": BATCH,
                "python-modules": [
                    f"airflow_jobflow.triggers.{module}" for module in ("job", "map", "sensor", "state_change")
                ],
            }
        ],
        "extra-links": [
            f"airflow_jobflow.links.{link}"
            for link in (
                "BatchJobLink",
                "BatchJobDefinitionLink",
                "BatchJobQueueLink",
                "FargateTaskLink",
                "GlueCrawlerLink",
                "GlueJobRunLink",
                "JobLogLink",
                "JobsLink",
            )
        ],
        "config": {
            "jobflow": {
                "description": "How jobs on AWS are waited for.",
                "options": {
                    name: {
                        "description": description,
                        "version_added": "0.1.0",
                        "type": kind,
                        "example": None,
                        "default": default,
                    }
                    for name, (kind, default, description) in _OPTIONS.items()
                },
            }
        },
    }
