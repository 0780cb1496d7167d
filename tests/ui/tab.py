"""The tab in a browser: its address, and how to detect that it has been drawn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote

from tests.ui.chromium import Chromium, Page
from tests.ui.rights import VIEWER
from tests.ui.seed_run import RUN
from tests.ui.server import Server

FRAME = "document.querySelector('iframe').contentDocument"
"""The tab's document in Airflow's own page."""

NOT_THE_TABS = "An iframe which has both allow-scripts and allow-same-origin"
"""A message of Chromium about every plugin's tab, caused by Airflow."""


@contextmanager
def signed_in(
    chromium: Chromium, airflow: Server, user: str = VIEWER, *, width: int = 1280, height: int = 900
) -> Iterator[Page]:
    """Open a page with a user's session."""
    with chromium.page(width=width, height=height) as page:
        page.cookie("_token", airflow.token(user), airflow.url)
        yield page


def address(airflow: Server, task: str = "", map_index: int | str = "{MAP_INDEX}") -> str:
    """Return the address of a task instance's page outside Airflow's; without a task, that of the run."""
    of_task = f"&task_id={task}&map_index={quote(str(map_index))}" if task else ""
    return f"{airflow.url}/jobflow/?dag_id=jobs_page&run_id={quote(RUN, safe='')}{of_task}"


def in_airflow(airflow: Server, task: str = "", tab: str = "plugin/jobflow", dag: str = "jobs_page") -> str:
    """Return the address of Airflow's own page of a task instance, with the tab; without a task, that of the run."""
    where = f"{airflow.url}/dags/{dag}/runs/{quote(RUN, safe='')}"
    return f"{where}/tasks/{task}/{tab}" if task else f"{where}/plugin/jobflow-run"


def drawn(page: Page, document: str = "document") -> str:
    """Wait until the page is drawn, and return its visible text."""
    page.until(f"{document}.querySelector('#page') && !{document}.querySelector('#page').hasAttribute('aria-busy')")
    return str(page.run(f"{document}.body.innerText"))


def shown(page: Page, url: str) -> str:
    """Open the page outside Airflow's, and return its visible text."""
    page.go(url)
    return drawn(page)


def shown_in_airflow(page: Page, url: str) -> str:
    """Open the page in Airflow's, and return the visible text of the tab."""
    page.go(url)
    page.until("document.querySelector('iframe')")
    return drawn(page, FRAME)
