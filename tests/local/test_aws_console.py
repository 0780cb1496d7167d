"""The console pages of the local AWS: their content, and that they change nothing."""

from __future__ import annotations

import html
import re
import threading
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from airflow_jobflow.local import LocalAws
from airflow_jobflow.local.console.html import PREFIX, Link, Page, Table, Text, render
from airflow_jobflow.local.console.proxy import server
from airflow_jobflow.local.samples import register_definition

HOSTILE = "<script>alert(1)</script>\"'&"


def load(url: str, method: str = "GET") -> tuple[int, str, Any]:
    """Load a page, and return its status, content and headers."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=30) as answer:
            return answer.status, answer.read().decode(), answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(), error.headers


def page(aws: Any, name: str, **parameters: Any) -> str:
    """Load an existing page of a local AWS."""
    query = urllib.parse.urlencode(parameters)
    status, content, _ = load(f"{aws.console_url}/{name}?{query}")
    assert status == 200, content
    return content


def follow(aws: Any, content: str, text: str) -> str:
    """Load the page that a link on a page leads to."""
    (address,) = set(re.findall(rf'<a href="([^"]+)">{re.escape(text)}</a>', content))
    status, content, _ = load(aws.endpoint_url + html.unescape(address))
    assert status == 200, content
    return content


def test_the_page_of_a_batch_job_shows_details_and_hides_secrets(kit: Any) -> None:
    """It has status, exit code, reason, attempts, log and environment, but no value that looks like a secret."""
    variables = [{"name": "DAY", "value": "2026-01-01"}, {"name": "DB_PASSWORD", "value": "hunter2"}]
    definition = kit.define(["sh", "-c", "echo over here; exit 3"], containerProperties={"environment": variables})
    job_id = kit.submit(jobDefinition=definition, retryStrategy={"attempts": 2}, tags={"team": "data"})
    kit.wait(job_id)
    shown = page(kit.aws, "batch-job", job=job_id, region="us-east-1")
    for text in ("FAILED", "Essential container in task exited", "2 of 2", "over here", "2026-01-01", "DB_PASSWORD"):
        assert text in shown
    assert "hunter2" not in shown
    assert "http-equiv" not in shown  # no more changes follow
    assert "over here" in follow(kit.aws, shown, "All lines")
    assert job_id not in follow(kit.aws, shown, definition.rpartition("/")[2])
    assert "DB_PASSWORD" in follow(kit.aws, shown, definition.rpartition("/")[2])
    assert "hunter2" not in follow(kit.aws, shown, definition.rpartition("/")[2])
    assert "FAILED" in follow(kit.aws, shown, kit.queue)


def test_the_page_of_an_array_lists_all_children_in_pages(kit: Any) -> None:
    """A page lists a hundred children, each with a link to its page."""
    job_id = kit.submit(jobName="many", arrayProperties={"size": 101})
    kit.wait(job_id)
    first = page(kit.aws, "batch-job", job=job_id)
    assert "101 SUCCEEDED" in first
    assert "Children 0 to 99 of 101" in first
    last = follow(kit.aws, first, "Next children")
    assert "Children 100 to 100 of 101" in last
    child = follow(kit.aws, last, "100")
    assert f"{job_id}:100" in child
    assert "101 SUCCEEDED" in follow(kit.aws, child, f"child 100 of {job_id}")


def test_the_page_of_a_running_job_reloads_itself(kit: Any, gate: Any) -> None:
    """The log grows, and the page has no script that could load it."""
    job_id = kit.sh(f"while [ ! -e {gate} ]; do sleep 0.02; done")
    kit.wait(job_id, "RUNNING")
    shown = page(kit.aws, "batch-job", job=job_id)
    assert "RUNNING" in shown
    assert 'http-equiv="refresh"' in shown


def test_the_page_of_a_task_shows_each_of_its_containers(ecs_kit: Any) -> None:
    """Each has its exit code, command and log."""
    sidecar = ecs_kit.container(["sh", "-c", "echo beside; exit 3"], name="sidecar", essential=False)
    main = ecs_kit.container(["sh", "-c", "echo work; sleep 0.3"], environment=[{"name": "API_KEY", "value": "k3y"}])
    arn = ecs_kit.run(sidecar, main)
    ecs_kit.wait(arn)
    shown = page(ecs_kit.aws, "ecs-task", cluster=ecs_kit.cluster, task=arn)
    for text in ("STOPPED", "EssentialContainerExited", "Log of sidecar", "beside", "Log of main", "work", "API_KEY"):
        assert text in shown
    assert "k3y" not in shown


def test_a_long_log_is_shown_in_pages_from_its_end(kit: Any) -> None:
    """Users look for the end."""
    job_id = kit.sh("i=0; while [ $i -lt 1001 ]; do echo line-$i; i=$((i+1)); done")
    kit.wait(job_id)
    last = follow(kit.aws, page(kit.aws, "batch-job", job=job_id), "All lines")
    assert "line-1000<" in last
    assert "line-500\n" not in last
    middle = follow(kit.aws, last, "Earlier lines")
    assert "Lines 2 to 501 of 1001" in middle
    assert "Lines 1 to 1 of 1001" in follow(kit.aws, middle, "Earlier lines")
    assert "Lines 502 to 1001 of 1001" in follow(kit.aws, middle, "Later lines")


@pytest.mark.parametrize(
    ("path", "parameters", "status"),
    [
        ("batch-job", {"job": "there-is-none"}, 404),
        ("batch-job", {"job": HOSTILE}, 404),
        ("batch-job", {}, 400),
        ("batch-job", {"job": "x", "region": "eu-nowhere-1"}, 404),
        ("batch-job-queue", {"queue": HOSTILE}, 404),
        ("batch-job-queue", {"queue": "q", "after": HOSTILE}, 404),
        ("batch-job-definition", {"definition": HOSTILE}, 404),
        ("ecs-task", {"cluster": HOSTILE, "task": HOSTILE}, 404),
        ("ecs-task", {"cluster": "c"}, 400),
        ("glue-crawler", {"crawler": HOSTILE}, 404),
        ("glue-job-run", {"job": HOSTILE, "run": HOSTILE}, 404),
        ("log", {"group": HOSTILE, "stream": HOSTILE}, 404),
        (urllib.parse.quote(HOSTILE), {}, 404),
    ],
)
def test_an_unknown_resource_has_an_error_page(
    kit: Any, ecs_kit: Any, path: str, parameters: dict[str, str], status: int
) -> None:
    """Everything in the address is escaped."""
    assert kit.aws is ecs_kit.aws  # both services have been used
    said, content, headers = load(f"{kit.aws.console_url}/{path}?{urllib.parse.urlencode(parameters)}")
    assert said == status, content
    assert "<script" not in content
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")


def test_values_on_a_page_are_escaped() -> None:
    """Names, values, lines, links and headers are tested."""
    link = Link(HOSTILE, "page", {"name": HOSTILE})
    table = Table(HOSTILE, (HOSTILE,), [(HOSTILE,), (link,)], [link])
    content = render(
        Page(HOSTILE, HOSTILE, HOSTILE, {HOSTILE: HOSTILE, "link": link}, [table, Text(HOSTILE, [HOSTILE])])
    )
    assert "<script" not in content
    assert content.count("&lt;script&gt;") >= 10
    assert re.findall(r'(?:src|href)="(?!/jobflow-console/)', content) == []


def test_loading_pages_changes_nothing_and_is_not_counted(own_aws: LocalAws, own_kit: Any) -> None:
    """Tests count calls, and a region is created by its first call."""
    job_id = own_kit.sh("true")
    own_kit.wait(job_id)
    before, services = own_aws.calls, set(own_aws._services)
    page(own_aws, "")
    page(own_aws, "batch-job", job=job_id)
    for name in ("batch-job", "glue-crawler"):
        load(f"{own_aws.console_url}/{name}?job={job_id}&crawler=c&region=eu-west-1")
    assert load(f"{own_aws.console_url}/batch-job?job={job_id}", "POST")[0] == 405
    assert own_aws.calls == before
    assert set(own_aws._services) == services


def test_the_first_page_links_to_all_started_jobs(own_aws: LocalAws, own_kit: Any) -> None:
    """Users may open it without a link from Airflow."""
    definition = register_definition(own_kit.batch, "d", ["true"])
    name = f"job-{uuid.uuid4().hex}"
    own_kit.wait(own_kit.submit(jobName=name, jobDefinition=definition))
    assert "SUCCEEDED" in follow(own_aws, page(own_aws, ""), name)


@contextmanager
def proxied(upstream: str) -> Iterator[str]:
    """Serve the pages of a local AWS at another address."""
    listening = server(upstream, "127.0.0.1", 0)
    thread = threading.Thread(target=listening.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.server_port}"
    finally:
        listening.shutdown()
        listening.server_close()
        thread.join()


def test_the_proxy_only_forwards_pages(kit: Any) -> None:
    """Anyone who reaches the local AWS can run commands."""
    job_id = kit.sh("true")
    kit.wait(job_id)
    with proxied(kit.aws.endpoint_url) as url:
        status, content, headers = load(f"{url}{PREFIX}batch-job?job={job_id}")
        assert (status, content) == load(f"{kit.aws.console_url}/batch-job?job={job_id}")[:2]
        assert headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert load(url)[0] == 200  # the first page
        assert load(f"{url}{PREFIX}batch-job?job=none")[0] == 404
        for path in (
            "jobflow-local/health",
            "jobflow-console/../jobflow-local/health",
            "jobflow-console/%2e%2e/x",
            "x",
        ):
            assert load(f"{url}/{path}")[0] == 404
        for method in ("POST", "PUT", "DELETE"):
            assert load(f"{url}{PREFIX}batch-job?job={job_id}", method)[0] == 501


def test_the_proxy_reports_that_the_local_aws_is_unreachable() -> None:
    """It keeps running during a restart of the local AWS."""
    with LocalAws() as gone:
        pass
    with proxied(gone.endpoint_url) as url:
        assert load(f"{url}{PREFIX}")[0] == 502
