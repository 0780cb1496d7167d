"""The console links of tasks on a local AWS."""

from __future__ import annotations

import re
import urllib.request
from typing import Any

import pytest

from airflow_jobflow.exceptions import JobFailed
from tests.local.operator_cases import CASES, Batch, Case, Crawl, Fargate


def read(url: str) -> str:
    """Load a page."""
    with urllib.request.urlopen(url, timeout=30) as page:
        return str(page.read().decode())


@pytest.fixture(autouse=True)
def _local_console(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the console URL like `make ui`."""
    monkeypatch.setenv("AIRFLOW__JOBFLOW__CONSOLE_URL", case.kit.aws.console_url)


@pytest.mark.parametrize("case", CASES, indirect=True)
def test_every_link_of_a_task_leads_to_a_page_of_the_local_aws(case: Case, context: Any) -> None:
    """AWS's own console does not know the job."""
    case.gate.touch()
    operator = case.make(deferrable=False)
    outcome = operator.execute(context)
    (job_id,) = case.started()
    assert outcome["console_url"] in operator.kept_links.values()
    page = read(outcome["console_url"])
    assert job_id in page
    assert {Crawl: "COMPLETED", Fargate: "EssentialContainerExited"}.get(type(case), "SUCCEEDED") in page
    for url in operator.kept_links.values():
        assert url.startswith(case.kit.aws.console_url)
        assert "Local AWS" in read(url)


@pytest.mark.parametrize("case", [Batch], indirect=True)
def test_the_error_of_a_task_names_the_page_with_its_log(case: Case, context: Any) -> None:
    """Readers of the task's log continue there."""
    case.gate.write_text("no")
    with pytest.raises(JobFailed) as error:
        case.make(deferrable=False, command=["sh", "-c", "echo 'a <b>bold</b> line'; exit 3"]).execute(context)
    (url,) = re.findall(r"^Console: (\S+)$", str(error.value), re.MULTILINE)
    assert "a &lt;b&gt;bold&lt;/b&gt; line" in read(url)
