"""A flow of Prefect that starts a Batch job, executed in a Fargate task that an ECS worker starts.

``PREFECT_API_URL`` is the address of the server that this program starts.
"""

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import boto3
from prefect import flow
from prefect.deployments import run_deployment
from prefect_aws import AwsCredentials
from prefect_aws.batch import batch_submit

PREFECT = str(Path(sys.executable).with_name("prefect"))
POOL = "fargate"
PATIENCE = 120


@flow
def jobs() -> None:
    """Start a Batch job, and wait for it."""
    job = batch_submit("prefect", "hello-world-queue", "hello-world", AwsCredentials())
    batch = boto3.client("batch")
    while (status := batch.describe_jobs(jobs=[job])["jobs"][0]["status"]) not in ("SUCCEEDED", "FAILED"):
        time.sleep(0.1)
    if status != "SUCCEEDED":
        raise RuntimeError("The job has failed")


def prefect(*arguments: str) -> "subprocess.Popen[bytes]":
    """Start a command of Prefect."""
    return subprocess.Popen([PREFECT, *arguments], stdout=sys.stderr)


def wait_for_server() -> None:
    """Wait until the server responds."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"{os.environ['PREFECT_API_URL']}/health").close()
            return
        except urllib.error.URLError:
            time.sleep(0.2)
    raise TimeoutError("Prefect's server does not answer")


def deploy() -> None:
    """Create a work pool of Fargate tasks, and a deployment of the flow with its code where the tasks run."""
    if prefect("work-pool", "create", POOL, "--type", "ecs").wait():
        raise SystemExit("The work pool could not be created")
    here = Path(__file__)
    flow.from_source(source=str(here.parent), entrypoint=f"{here.name}:jobs").deploy(
        name="fargate",
        work_pool_name=POOL,
        image="prefecthq/prefect:3-latest",
        build=False,
        push=False,
        print_next_steps=False,
        job_variables={"cluster": "jobflow", "command": f"{PREFECT} flow-run execute"},
    )


def main() -> None:
    """Start a server and a worker, and run the deployment."""
    server = prefect("server", "start", "--no-ui", "--port", str(urlsplit(os.environ["PREFECT_API_URL"]).port))
    worker = None
    try:
        wait_for_server()
        deploy()
        worker = prefect("worker", "start", "--pool", POOL, "--type", "ecs")
        finished = run_deployment("jobs/fargate", timeout=PATIENCE, poll_interval=1)
        print("flow run:", finished.state.name, finished.state.message or "")  # noqa: T201
    finally:
        for process in filter(None, (worker, server)):
            process.terminate()
            process.wait()


if __name__ == "__main__":
    main()
