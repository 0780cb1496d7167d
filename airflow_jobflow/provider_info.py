"""The provider metadata of this package, for Airflow."""

from __future__ import annotations

from typing import Any

BATCH = "AWS Batch (Jobflow)"
ECS = "Amazon ECS (Jobflow)"
GLUE = "AWS Glue (Jobflow)"

_OPTIONS: dict[str, tuple[str, str, str]] = {  # type, default, description
    "describe_calls_per_second": (
        "float",
        "5.0",
        (
            "The most describe calls per second of a process, for each service, connection and region. All waits share "
            "this limit, across ECS clusters and Glue jobs. One call describes up to 100 jobs."
        ),
    ),
    "poll_interval": (
        "float",
        "10.0",
        "Seconds between two describe calls for one job. Operators and sensors can set their own poll_interval.",
    ),
    "missing_grace": (
        "float",
        "300.0",
        "Seconds for which AWS may not know a job before its wait fails. A job may be unknown just after its submit.",
    ),
    "denied_grace": (
        "float",
        "300.0",
        (
            "Seconds for which describe calls may be denied before the wait fails, because permissions or credentials "
            "are missing, for example while a policy is replaced. The job keeps running. 0 to fail at once."
        ),
    ),
    "request_timeout": (
        "float",
        "20.0",
        "Seconds after which a describe call without a response is abandoned and retried.",
    ),
    "event_queue_url": (
        "string",
        "",
        (
            "URL of the SQS queue that receives state changes of Batch, ECS and Glue jobs from EventBridge, so that a "
            "wait in the triggerer ends within a second of its job. The extra jobflow_event_queue_url of an AWS "
            "connection takes precedence. Messages are deleted from this queue, so nothing else can use it. Empty for "
            "none."
        ),
    ),
    "event_poll_interval": (
        "float",
        "300.0",
        "Seconds between two describe calls for a job without events, while the event queue can be read.",
    ),
    "log_calls_per_second": (
        "float",
        "25.0",
        (
            "The most GetLogEvents calls per second of a process, for each connection and region. All logs that are "
            "copied share this limit. AWS allows an account 25 in most regions, and others may need some of them."
        ),
    ),
    "stream_logs": (
        "string",
        "False",
        (
            "Whether operators and sensors copy their jobs' logs into the task's log: True for all lines, while the "
            "jobs run; failed for the last lines of failed jobs, children and items; or False. They can set their own "
            "stream_logs."
        ),
    ),
    "deployment_id": (
        "string",
        "",
        (
            "A name for this deployment of Airflow that is unique within its AWS accounts. Every job carries it: "
            "retries find only jobs of their own deployment, and the orphan reaper stops only these. Without it the "
            "reaper stops nothing and only reports. After a change, retries do not find jobs that were started before. "
            "Empty for none."
        ),
    ),
    "console_url": (
        "string",
        "",
        (
            "URL of the console pages of a local AWS, such as http://127.0.0.1:5000/jobflow-console. All console links "
            "then lead there. Empty for the AWS console."
        ),
    ),
    "deferrable": (
        "boolean",
        "True",
        "Whether operators and sensors wait in the triggerer. They can set their own deferrable.",
    ),
    "start_from_trigger": (
        "string",
        "sensors",
        (
            "What starts in the triggerer, without a worker, if it can: sensors, all (operators too), or none. Tasks "
            "can set their own start_from_trigger. Airflow applies neither pools nor limits of parallel tasks to such "
            "a start. Set it equally for DAG processors, workers and triggerers."
        ),
    ),
    "end_in_trigger": (
        "string",
        "auto",
        (
            "Whether a successful wait ends its task in the triggerer, without a worker: auto, if the task uses no "
            "feature that needs a worker (such as outlets, callbacks and listeners), or never."
        ),
    ),
    "rates": (
        "string",
        "",
        (
            "What jobs cost, as JSON: prices per hour (vcpu_hour, gib_hour, gpu_hour, dpu_hour) by the name of a queue "
            "or cluster, by type of capacity, or by service, such as "
            '{"FARGATE": {"vcpu_hour": 0.04, "gib_hour": 0.004}, "FARGATE_SPOT": {"vcpu_hour": 0.012}, '
            '"my-queue": {"vcpu_hour": 0.03}, "glue_run": {"dpu_hour": 0.44}}. '
            "The usage of a job then has its cost. Empty for no costs."
        ),
    ),
}


def get_provider_info() -> dict[str, Any]:
    """Return the provider's metadata, as Airflow's provider_info schema defines it."""
    return {
        "package-name": "airflow-jobflow",
        "name": "Jobflow",
        "description": "Runs jobs on AWS Batch, ECS and Glue and waits for thousands of them at almost no cost.",
        "integrations": [
            {"integration-name": name, "external-doc-url": url, "tags": ["aws"]}
            for name, url in (
                (BATCH, "https://aws.amazon.com/batch/"),
                (ECS, "https://aws.amazon.com/ecs/"),
                (GLUE, "https://aws.amazon.com/glue/"),
            )
        ],
        **{
            kind: [
                {"integration-name": BATCH, "python-modules": [f"airflow_jobflow.{kind}.batch"]},
                {"integration-name": ECS, "python-modules": [f"airflow_jobflow.{kind}.ecs"]},
                {"integration-name": GLUE, "python-modules": [f"airflow_jobflow.{kind}.glue"]},
            ]
            for kind in ("operators", "sensors")
        },
        "triggers": [
            {
                "integration-name": BATCH,
                "python-modules": [
                    f"airflow_jobflow.triggers.{module}" for module in ("job", "map", "start", "state_change")
                ],
            }
        ],
        "task-decorators": [
            {"name": name, "class-name": f"airflow_jobflow.decorators.{decorator}"}
            for name, decorator in (
                ("batch", "batch.batch_task"),
                ("batch_map", "batch.batch_map_task"),
                ("fargate", "ecs.fargate_task"),
                ("fargate_map", "ecs.fargate_map_task"),
                ("ecs", "ecs.ecs_task"),
                ("ecs_map", "ecs.ecs_map_task"),
            )
        ],
        "extra-links": [
            f"airflow_jobflow.links.{link}"
            for link in (
                "BatchJobLink",
                "BatchJobDefinitionLink",
                "BatchJobQueueLink",
                "EcsTaskLink",
                "GlueCrawlerLink",
                "GlueJobRunLink",
                "JobLogLink",
                "JobsLink",
            )
        ],
        "config": {
            "jobflow": {
                "description": "How to wait for jobs on AWS.",
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
