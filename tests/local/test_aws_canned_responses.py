"""Canned responses of the local AWS, in boto3."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from airflow_jobflow.local import CannedResponse, Faults, LocalAwsClient
from airflow_jobflow.local.call import Call
from airflow_jobflow.local.fault_box import FaultBox
from airflow_jobflow.local.faults import PROXY_PAGE

UNKNOWN = "00000000-0000-0000-0000-000000000000"
ONCE = Config(retries={"total_max_attempts": 1})

WRAPPED = [
    (
        "InvalidParameterException",
        "Error retrieving subnet information for [subnet-1]: Rate exceeded (ErrorCode: Throttling)",
    ),
    ("ClientException", "Tasks provisioning capacity limit exceeded."),
]


@pytest.mark.parametrize(("code", "message"), WRAPPED)
def test_next_calls_get_the_error_that_is_given(own_ecs_kit: Any, code: str, message: str) -> None:
    """RunTask wraps EC2's throttling in other errors; after the given number of calls, it starts tasks again."""
    wrapped = CannedResponse(code=code, message=message, actions=("ecs.RunTask",), calls=2)
    own_ecs_kit.aws.set_faults(Faults(respond_with=(wrapped,)))
    request = own_ecs_kit.request()
    for _ in range(2):
        with pytest.raises(ClientError) as caught:
            own_ecs_kit.ecs.run_task(**request)
        assert caught.value.response["Error"] == {"Code": code, "Message": message}
        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert own_ecs_kit.aws.started("ecs") == []
    assert len(own_ecs_kit.ecs.run_task(**request)["tasks"]) == 1
    assert own_ecs_kit.aws.calls["ecs.RunTask"] == 3


def test_calls_over_a_rate_get_the_error_that_is_given(own_kit: Any) -> None:
    """Calls below the rate are handled."""
    throttled = CannedResponse(code="ClientException", message="Too many", calls_per_second=0.001)
    own_kit.aws.set_faults(Faults(respond_with=(throttled,)))
    own_kit.aws.client("batch", config=ONCE).describe_jobs(jobs=[UNKNOWN])
    with pytest.raises(ClientError, match="Too many"):
        own_kit.aws.client("batch", config=ONCE).describe_jobs(jobs=[UNKNOWN])


def test_first_response_that_applies_is_used(own_kit: Any) -> None:
    """It depends on the action, on the resource in the request, and on the remaining number of calls."""
    own_kit.aws.set_faults(
        Faults(
            respond_with=(
                CannedResponse(code="Named", resources=("job-1",)),
                CannedResponse(code="Once", actions=("DescribeJobs",), calls=1),
                CannedResponse(code="Other", actions=("batch.TerminateJob",)),
            )
        )
    )
    batch = own_kit.aws.client("batch", config=ONCE)
    codes = []
    for call, parameters in (
        (batch.describe_jobs, {"jobs": [UNKNOWN]}),
        (batch.describe_jobs, {"jobs": [UNKNOWN, "job-1"]}),
        (batch.terminate_job, {"jobId": UNKNOWN, "reason": "test"}),
        (batch.terminate_job, {"jobId": "job-1", "reason": "test"}),
    ):
        with pytest.raises(ClientError) as caught:
            call(**parameters)
        codes.append(caught.value.response["Error"]["Code"])
    assert codes == ["Once", "Named", "Other", "Named"]
    assert batch.describe_jobs(jobs=[UNKNOWN])["jobs"] == []


DESCRIBES: dict[str, tuple[str, dict[str, Any]]] = {
    "batch": ("describe_jobs", {"jobs": [UNKNOWN]}),
    "ecs": ("describe_tasks", {"tasks": [UNKNOWN]}),
    "glue": ("get_job_run", {"JobName": "job", "RunId": "jr_1"}),
    "logs": ("get_log_events", {"logGroupName": "group", "logStreamName": "stream"}),
}


def describe(aws: Any, service: str) -> dict[str, Any]:
    """Return the response to one describe call of a service."""
    operation, parameters = DESCRIBES[service]
    answer: dict[str, Any] = getattr(aws.client(service, config=ONCE), operation)(**parameters)
    return answer


@pytest.mark.parametrize("service", DESCRIBES)
@pytest.mark.parametrize(("status", "body"), [(403, PROXY_PAGE), (407, PROXY_PAGE), (404, PROXY_PAGE), (502, "")])
def test_proxy_may_respond_instead_of_aws(own_aws: Any, service: str, status: int, body: str) -> None:
    """boto3 raises a ClientError whose code is the HTTP status."""
    before = own_aws.calls
    own_aws.set_faults(Faults(respond_with=(CannedResponse(status=status, body=body),)))
    with pytest.raises(ClientError) as caught:
        describe(own_aws, service)
    assert caught.value.response["Error"]["Code"] == str(status)
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
    assert (own_aws.calls - before).total() == 1


@pytest.mark.parametrize("service", DESCRIBES)
@pytest.mark.parametrize("body", ["", PROXY_PAGE])
def test_success_may_have_no_content(own_aws: Any, service: str, body: str) -> None:
    """This happens behind a captive portal: boto3 raises no error, and returns a response without members."""
    own_aws.set_faults(Faults(respond_with=(CannedResponse(status=200, body=body),)))
    assert set(describe(own_aws, service)) == {"ResponseMetadata"}


def test_call_may_take_effect_despite_an_error_response(own_kit: Any) -> None:
    """A gateway that times out does not undo the submission."""
    definition = own_kit.define()
    gateway = CannedResponse(status=504, body=PROXY_PAGE, actions=("SubmitJob",), calls=1, takes_effect=True)
    own_kit.aws.set_faults(Faults(respond_with=(gateway,)))
    batch = own_kit.aws.client("batch", config=ONCE)
    with pytest.raises(ClientError):
        batch.submit_job(jobName="job", jobQueue=own_kit.queue, jobDefinition=definition)
    assert len(own_kit.aws.started("batch")) == 1
    own_kit.submit(jobDefinition=definition)
    assert len(own_kit.aws.started("batch")) == 2


def test_calls_of_moto_may_take_effect_too(own_aws: Any) -> None:
    """Faults work in the same way for calls that moto handles."""
    broken = CannedResponse(code="ServiceUnavailable", status=503, actions=("sqs.CreateQueue",), takes_effect=True)
    own_aws.set_faults(Faults(respond_with=(broken,)))
    sqs = own_aws.client("sqs", config=ONCE)
    with pytest.raises(ClientError, match="ServiceUnavailable"):
        sqs.create_queue(QueueName="made")
    assert [url.rsplit("/", 1)[1] for url in sqs.list_queues()["QueueUrls"]] == ["made"]


def test_assume_role_may_fail(own_aws: Any) -> None:
    """STS responds with XML."""
    throttled = CannedResponse(code="Throttling", message="Rate exceeded", actions=("sts.AssumeRole",), calls=1)
    own_aws.set_faults(Faults(respond_with=(throttled,)))
    sts = own_aws.client("sts", config=ONCE)
    role = {"RoleArn": f"arn:aws:iam::{own_aws.account_id}:role/any", "RoleSessionName": "test"}
    with pytest.raises(ClientError, match=r"\(Throttling\) .* Rate exceeded"):
        sts.assume_role(**role)
    assert sts.assume_role(**role)["Credentials"]["AccessKeyId"]


def test_faults_end_by_themselves(own_kit: Any) -> None:
    """No further call to the control API is needed; a hanging call is then handled."""
    error = CannedResponse(code="ServerException", status=500)
    own_kit.aws.set_faults(Faults(respond_with=(error,), lasts=600))
    batch = own_kit.aws.client("batch", config=ONCE)
    with pytest.raises(ClientError, match="ServerException"):
        batch.describe_jobs(jobs=[UNKNOWN])
    own_kit.aws.set_faults(Faults(hang=600, lasts=0.1))
    assert batch.describe_jobs(jobs=[UNKNOWN])["jobs"] == []


class Clock:
    """A clock that does not advance."""

    now = 0.0

    def read(self) -> float:
        """Return the time in seconds."""
        return self.now


def test_faults_last_as_long_as_given() -> None:
    """The duration is exact by the clock of the faults."""
    clock = Clock()
    box = FaultBox(clock.read)
    call = Call("batch", "DescribeJobs")
    error = CannedResponse(code="ServerException", status=500)
    faults = Faults(respond_with=(error,), visible_after=600, lose_answers=9, interrupt_spot=9, lasts=60)
    box.set(faults)
    clock.now = 59.9
    assert box.before(call, "1") == error
    assert box.faults == faults
    assert box.hides(599)
    clock.now = 60
    assert not box.hides(599)
    assert box.before(call, "1") is None
    assert not box.loses_answer(call)
    assert not box.interrupts_spot("")
    assert box.faults == Faults()


def test_canned_responses_work_over_http(own_kit: Any) -> None:
    """JSON has no tuples."""
    remote = LocalAwsClient(own_kit.aws.endpoint_url)
    error = CannedResponse(code="Teapot", actions=("DescribeJobs",), resources=(UNKNOWN,), calls=1)
    remote.set_faults(Faults(respond_with=(error,)))
    batch = own_kit.aws.client("batch", config=ONCE)
    with pytest.raises(ClientError, match="Teapot"):
        batch.describe_jobs(jobs=[UNKNOWN])
    batch.describe_jobs(jobs=[UNKNOWN])
    for wrong, why in (
        ({"respond_with": [{"cod": "Teapot"}]}, "Unknown fault: cod"),
        ({"respond_with": [{"code": "Teapot", "body": ""}]}, "either code"),
        ({"respond_with": [{}]}, "either code"),
        ({"lasts": 0}, "must be above 0"),
        ({"outage": True}, "needs lasts"),
    ):
        with pytest.raises(ValueError, match=why):
            Faults.from_json(wrong)


def test_faults_survive_json() -> None:
    """Faults are the same after being set over HTTP."""
    faults = Faults(
        respond_with=(CannedResponse(body="", status=200, actions=("a",), resources=("b",)),),
        denied_resources=("c",),
        missing=("d",),
        outage=True,
        lasts=3,
    )
    assert Faults.from_json(faults.to_json()) == faults
