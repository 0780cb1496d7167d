"""The tab in Chromium, against a running Airflow: what it shows of the XComs that tasks have left."""

from __future__ import annotations

import json
import sqlite3
import sys
from typing import Any

import pytest

from tests.ui.cases import CASES, FAILED_JOB, KILL, MARKUP, PARENT, child, job, noted, outcome
from tests.ui.chromium import Chromium, Page
from tests.ui.hostile import ARRAY, GOOD, STAND_IN, broken
from tests.ui.rights import GUEST, READER
from tests.ui.server import Server
from tests.ui.tab import FRAME, NOT_THE_TABS, address, drawn, in_airflow, shown, shown_in_airflow, signed_in

TEXTS: dict[str, list[str]] = {
    "job": [
        "resize-images-2f6d1c",
        "Succeeded",
        "Queued",
        "1 min 25 s",
        "Starting",
        "43 s",
        "19 min 32 s",
        "Exit code",
        "586 vCPU-seconds, 2.604 GiB-hours",
        "0.0123",
        '"rows": 8123',
        "s3://results/etl/4fd1/0a",
    ],
    "killed": ["Stopped by Airflow", "The task was set to failed before its job ended", KILL, "54 s", "Exit code"],
    "killed_running": ["Stopped by Airflow", "The task was set to failed before its job ended", "44 s", "Console"],
    "killed_unseen": ["Last seen RUNNING", "at least", "the task ended at", "Last known state"],
    "unstopped": ["Not stopped", "it may still run: AccessDenied", "Last seen RUNNING"],
    "sensor_killed": ["Last seen RUNNING", "A sensor never stops a job"],
    "array_killed": ["Stopped by Airflow", "6,204 succeeded", "3,796 failed or stopped"],
    "map_killed": [
        "Stopped by Airflow",
        "before its jobs ended",
        "29 succeeded",
        "1 failed",
        "10 stopped",
        "10 never started",
    ],
    "returned": ["Failed", "The command failed", "Exit code 3"],
    "tried": ["Running", "Try"],
    "live": ["Running", "Starting", "26 s", "Ended", "1 of 3", "As of"],
    "failed": [
        "Failed",
        "The container ran out of memory",
        "MEMORY in resourceRequirements",
        "Exit code 137",
        "Last lines of the log\n",
        "Loading 4,096 tiles …\nKilled",
    ],
    "nothing": ["Nothing to show", "do_xcom_push=False"],
    "between": ["Nothing to show", "See the task log"],
    "waiting": ["Not started yet"],
    "array": [
        "Queued and running",
        "6,250 of 10,000 children ended",
        "46 failed",
        "256 running",
        "3,494 waiting",
        "not failed so far",
    ],
    "array_failed": ["9,920 succeeded", "80 failed", "What failed: 80 of 10,000", "Host EC2", "OutOfMemoryError"],
    "array_10000": [
        "Succeeded",
        "80 failures tolerated",
        "9,920 succeeded",
        "80 of 10,000 children failed. The task tolerates this many",
        "Tolerated failures: 80 of 10,000",
    ],
    "map": [
        "Map of ECS tasks",
        "5 failures tolerated",
        "495 succeeded",
        "5 failed",
        "Tolerated failures: 5 of 500",
        "about 25 vCPU-hours on FARGATE+FARGATE_SPOT",
        "missing results (3)",
    ],
    "map_live": ["1,150 of 2,000 items ended", "88 running", "762 waiting", "starting"],
    "refused": ["Failed", "JobQueue not found", "What to do"],
    "retried": ["Last seen RUNNING", "at least 1 min 20 s", "did not end within", "The task will be retried"],
    "map_failed": ["Failed", "Map resize of Batch jobs could not start: no such queue"],
    "sensor": ["4 Batch jobs", "Every job", "part-3"],
    "crawl": ["Glue crawl", "sales", "tables created", "dpu hours", "0.033"],
    "hostile": [MARKUP, "Succeeded"],
    "malformed": ["Not known", "Last known state before the task ended"],
    "huge": ["The XCom return_value is too large to be shown", "The jobs cannot be shown"],
    "older": ["Succeeded", "No times are known for this job"],
    "newer": ["written by a newer version", "WARMING"],
    "other": ["No jobs here"],
}
"""Texts that the page of each task must contain."""


def test_every_case_has_texts() -> None:
    """A case without texts would not be tested."""
    assert set(TEXTS) == set(CASES)


@pytest.mark.parametrize("task", TEXTS)
def test_a_viewer_sees_the_jobs_of_a_task(page: Page, airflow: Server, task: str) -> None:
    """Whatever the XComs contain, the page shows what is known, and logs no error to the console."""
    text = shown(page, address(airflow, task))
    assert [words for words in TEXTS[task] if words not in text] == [], text
    assert page.complaints == []


@pytest.mark.parametrize(("index", "name"), [(0, "first-of-two"), (1, "second-of-two")])
def test_an_instance_of_a_mapped_task_shows_its_own_job(page: Page, airflow: Server, index: int, name: str) -> None:
    """It does not show that of the first instance."""
    assert name in shown(page, address(airflow, "mapped", index))
    assert page.complaints == []


def test_a_run_lists_its_jobs_with_the_time_each_spent_queued_and_running(page: Page, airflow: Server) -> None:
    """It does not read the XComs of other tasks."""
    text = shown(page, address(airflow))
    rows: list[str] = page.run("[...document.querySelectorAll('tbody tr')].map((row) => row.innerText)")
    cells = {row.split("\n")[0].strip(): " ".join(row.split()) for row in rows}
    assert "2 min 08 s 19 min 32 s" in cells["job"]
    assert "10,000 children, 80 failed" in cells["array_10000"]
    assert "4 jobs" in cells["sensor"]
    assert "mapped [1]" in cells
    assert "other" not in cells
    assert "from the first job to the last" in text
    failed = [name for name, (state, *_) in CASES.items() if state == "failed"]
    assert f"{len(failed)} tasks failed" in text
    assert "task succeeded" in cells["returned"]
    assert "80 failed, tolerated" in cells["array_10000"]
    assert "Used by the jobs of this run\nabout 25" in text
    assert not [each["url"] for each in page.responses if "/other/" in each["url"]]
    assert page.complaints == []


def test_malicious_content_stays_text(page: Page, airflow: Server) -> None:
    """Markup in a name, a script as a link and a log on http: neither run nor become links."""
    shown(page, address(airflow, "hostile"))
    assert page.run("window.hacked === undefined && ({}).polluted === undefined")
    assert page.run("document.querySelectorAll('main img, main script').length") == 0
    links: list[str] = page.run("[...document.querySelectorAll('main a')].map((each) => each.href)")
    assert [each for each in links if not each.startswith("https://")] == []
    assert page.complaints == []


@pytest.mark.parametrize("task", ["job", ""], ids=["task", "run"])
@pytest.mark.parametrize("name", GOOD)
def test_no_value_of_any_field_breaks_the_page(page: Page, airflow: Server, name: str, task: str) -> None:
    """It shows what is known, runs nothing, and the next update works like the first."""
    page.before_scripts(STAND_IN)
    shown(page, address(airflow, task))
    everything = list(broken(GOOD[name]))
    for start in range(0, len(everything), 200):
        assert page.run(f"window.feed({json.dumps(everything[start : start + 200])})") == []
    assert page.complaints == []


def test_a_page_recovers_from_malformed_xcoms(page: Page, airflow: Server) -> None:
    """Nothing of them remains on the page."""
    page.before_scripts(STAND_IN)
    shown(page, address(airflow, "job"))
    malformed = {"jobflow_jobs": MARKUP, "return_value": [[[]]]}
    assert page.run(f"window.feed({json.dumps([malformed, GOOD['map']])})") == []
    assert "3 succeeded" in page.text()


def test_every_link_leads_to_the_console_by_https(page: Page, airflow: Server) -> None:
    """The page of a job, its log and that of a failed child are linked."""
    shown(page, address(airflow, "array_failed"))
    links: list[str] = page.run("[...document.querySelectorAll('main a')].map((each) => each.href)")
    assert f"https://console.aws.amazon.com/batch/home?region=eu-west-1#jobs/detail/{PARENT}" in links
    logs = [each for each in links if "log-events" in each]
    assert logs[0].startswith(
        "https://console.aws.amazon.com/cloudwatch/home?region=eu-west-1#logsV2:log-groups/log-group/%2Faws%2Fbatch"
    )


def test_links_lead_to_the_pages_of_a_local_aws(page: Page, airflow: Server) -> None:
    """The job, its log and its children are linked. Another http: address does not become a link."""
    page.before_scripts(STAND_IN)
    shown(page, address(airflow, "job"))
    local = "http://127.0.0.1:5000/jobflow-console/"
    job_page = f"{local}batch-job?region=us-east-1&job={PARENT}"
    failed = job(**FAILED_JOB, links={"console": job_page})
    given = {"jobflow_jobs": noted(failed, array={**ARRAY, "failed_jobs": [child(1, log=None)]}, final=True)}
    assert page.run(f"window.feed({json.dumps([given])})") == []
    links: list[str] = page.run("[...document.querySelectorAll('main a')].map((each) => each.href)")
    log = f"{local}log?region=us-east-1&group=%2Faws%2Fbatch%2Fjob&stream=resize%2Fdefault%2F8c1f0a52"
    assert {job_page, log, job_page + "%3A1"} <= set(links)
    elsewhere = outcome(console_url=f"http://127.0.0.1:5000/batch-job?region=us-east-1&job={PARENT}")
    assert page.run(f"window.feed({json.dumps([{'return_value': elsewhere}])})") == []
    assert page.run("[...document.querySelectorAll('main a')].map((each) => each.href)") == []


def test_without_a_session_nothing_is_shown(chromium: Chromium, airflow: Server) -> None:
    """The files contain no data, and the API needs a session."""
    with chromium.page() as page:
        text = shown(page, address(airflow, "failed"))
        assert "You are not signed in" in text
        assert "resize" not in text
        assert {each["status"] for each in page.responses if "/api/v2/" in each["url"]} == {401}
        assert "You are not signed in" in shown(page, address(airflow))


@pytest.mark.parametrize("task", ["failed", ""])
@pytest.mark.parametrize(
    ("user", "message"), [(GUEST, "Access denied"), (READER, "You may not read this {what}'s XComs")]
)
def test_permissions_are_respected(chromium: Chromium, airflow: Server, user: str, message: str, task: str) -> None:
    """The page says which permission is missing. A reader may still see the task or the run itself."""
    with signed_in(chromium, airflow, user) as page:
        text = shown(page, address(airflow, task))
        assert message.format(what="task" if task else "run") in text
        assert "resize" not in text
        assert 403 in {each["status"] for each in page.responses if "/api/v2/" in each["url"]}


def test_an_unknown_task_is_not_found(page: Page, airflow: Server) -> None:
    """The run was deleted, or the address was mistyped."""
    assert "No such task instance" in shown(page, address(airflow, "gone"))
    assert "No task instance given" in shown(page, f"{airflow.url}/jobflow/?dag_id=%7BDAG_ID%7D")


@pytest.mark.parametrize("task", ["live", "array"])
def test_the_tab_is_found_in_airflows_own_page(page: Page, airflow: Server, task: str) -> None:
    """Airflow builds the address from that of the plugin."""
    text = shown_in_airflow(page, in_airflow(airflow, task))
    assert "resize-images-2f6d1c" in text
    assert [each for each in page.complaints if NOT_THE_TABS not in each] == []


def test_below_a_path_everything_is_found(chromium: Chromium, below_a_path: Server) -> None:
    """Tab, files, API and links have relative addresses."""
    with signed_in(chromium, below_a_path) as page:
        assert "resize-images-2f6d1c" in shown_in_airflow(page, in_airflow(below_a_path, "live"))
        assert "Time queued and running" in shown_in_airflow(page, in_airflow(below_a_path))
        links: list[str] = page.run(f"[...{FRAME}.querySelectorAll('td a')].map((each) => each.href)")
        assert [each for each in links if not each.startswith(f"{below_a_path.url}/dags/jobs_page/runs/")] == []
        assert [each for each in page.complaints if NOT_THE_TABS not in each] == []


def test_a_button_on_the_details_page_leads_to_the_tab(chromium: Chromium, below_a_path: Server) -> None:
    """It works even before the task has started, because the address is in no XCom."""
    with signed_in(chromium, below_a_path) as page:
        page.go(in_airflow(below_a_path, "waiting", "details"))
        button = "[...document.querySelectorAll('a')].find((each) => each.textContent === 'Jobs' && each.rel)"
        page.until(button)
        page.run(f"{button}.click()")
        page.until("document.querySelector('iframe')")
        assert "Not started yet" in drawn(page, FRAME)


def test_a_run_links_to_its_tasks(page: Page, airflow: Server) -> None:
    """The link opens in Airflow's window, which the frame of the tab cannot navigate itself."""
    shown_in_airflow(page, in_airflow(airflow))
    page.run(f"[...{FRAME}.querySelectorAll('td a')].find((each) => each.textContent === 'live').click()")
    page.until("document.location.pathname.endsWith('/tasks/live/plugin/jobflow')")
    page.until("document.querySelector('iframe')")
    page.until(f"{FRAME}.body && {FRAME}.body.innerText.includes('resize-images')")


def test_a_link_opens_a_window_from_within_the_frame(chromium: Chromium, page: Page, airflow: Server) -> None:
    """Airflow's frame does not allow its pages to open windows."""
    shown_in_airflow(page, in_airflow(airflow, "live"))
    page.run(f"[...{FRAME}.querySelectorAll('a')].find((each) => each.innerText.startsWith('Console')).click()")
    chromium.until_opened(page)


def test_earlier_tries_are_shown_from_their_logs(page: Page, airflow: Server) -> None:
    """Airflow deletes the XComs of a try when the next one starts. The content of a log stays text."""
    shown(page, address(airflow, "tried"))

    def choose(number: int) -> None:
        page.run(
            "((select) => { select.value = " + str(number) + "; select.dispatchEvent(new Event('change')) })"
            "(document.querySelector('select'))"
        )

    assert page.run("[...document.querySelectorAll('option')].map((each) => each.text)") == ["2: latest", "1: failed"]
    choose(1)
    page.until("document.body.innerText.includes('What the task logged about its jobs')")
    text = page.text()
    for expected in (
        "Try 1 of 2",
        "Task failed",
        "failed on attempt 1 of 3 with exit code 137",
        "Give the job more memory",
        "Last lines of the log",
        "Killed",
        "3 min 00 s",
        "Started Batch job 11d0-first",
        MARKUP,
    ):
        assert expected in text
    assert "object" not in text
    assert "DagBag" not in text
    assert page.run("document.querySelector('header a').href").endswith("/tasks/tried?try_number=1")
    page.run("document.dispatchEvent(new Event('visibilitychange'))")
    choose(2)
    assert "As of" in page.text()
    assert page.run("window.hacked === undefined")
    assert page.complaints == []


def test_the_heat_map_can_be_used_with_the_keyboard(page: Page, airflow: Server) -> None:
    """Screen readers announce the cell."""
    shown(page, address(airflow, "array_failed"))
    page.run("document.querySelector('canvas').focus()")
    said = "document.getElementById('said').textContent"
    page.key("End")
    assert page.run(said) == "Child 9999: succeeded"
    page.key("Home")
    page.key("f")
    assert page.run(said).startswith("Child 56: failed, Host EC2")
    page.key("Enter")
    card = page.run("document.querySelector('.child').innerText")
    assert "Child 56" in card
    assert "Console" in card
    assert page.run("document.activeElement.tagName") == "CANVAS"
    assert page.run("document.querySelector('tr.chosen').innerText").startswith("56")
    assert page.complaints == []


@pytest.mark.parametrize("task", ["failed", "refused", "array_failed", "map_live", "sensor", ""])
def test_every_focusable_element_has_a_name(page: Page, airflow: Server, task: str) -> None:
    """Screen readers need it."""
    shown(page, address(airflow, task))
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    reached = [
        node
        for node in nodes
        if {"name": "focusable", "value": {"type": "booleanOrUndefined", "value": True}} in node.get("properties", ())
    ]
    assert len(reached) > 1
    assert [node["role"]["value"] for node in reached if not node["name"]["value"].strip()] == []


@pytest.mark.parametrize("task", ["failed", "array_failed", "sensor", "hostile", "malformed", ""])
def test_a_narrow_window_does_not_scroll_sideways(page: Page, airflow: Server, task: str) -> None:
    """Only wide tables scroll, on their own."""
    page.size(390, 900)
    shown(page, address(airflow, task))
    assert page.run("document.documentElement.scrollWidth") == 390


def test_a_click_on_a_cell_shows_its_details(page: Page, airflow: Server) -> None:
    """The cell is that of item 0: a small map keeps all outcomes."""
    shown(page, address(airflow, "map"))
    place = page.run("(({x, y}) => [x, y])(document.querySelector('canvas').getBoundingClientRect())")
    page.click(place[0] + 5, place[1] + 5)
    card = page.until("document.querySelector('.child') && document.querySelector('.child').innerText")
    assert "Item 0" in card
    assert "Log" in card
    assert "2 min 30 s" in card


def test_a_failed_child_can_be_selected_in_the_list(page: Page, airflow: Server) -> None:
    """Not all users can see the heat map."""
    shown(page, address(airflow, "array_failed"))
    page.run("[...document.querySelectorAll('button.index')].find((each) => each.textContent === '112').click()")
    assert "OutOfMemoryError" in page.run("document.querySelector('.child').innerText")


def test_the_colours_are_those_of_airflow(page: Page, airflow: Server) -> None:
    """Light and dark themes work, including a change while the page is open."""
    shown_in_airflow(page, in_airflow(airflow, "array"))
    background = f"getComputedStyle({FRAME}.body).backgroundColor"
    cell = f"{FRAME}.querySelector('canvas').getContext('2d').getImageData(4000 % 200, 100, 1, 1).data.join()"
    light, cell_in_light = page.run(background), page.run(cell)
    page.run("document.documentElement.classList.add('dark')")
    page.until(f"{background} !== {json.dumps(light)}")
    page.until(f"{cell} !== {json.dumps(cell_in_light)}")


def test_the_page_updates_while_a_task_is_deferred(page: Page, airflow: Server, environment: dict[str, str]) -> None:
    """It neither reloads nor loses the focus."""
    database = environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].removeprefix("sqlite:///")

    def note(value: Any) -> None:
        with sqlite3.connect(database, timeout=30) as connection:
            connection.execute(
                "update xcom set value = ? where task_id = 'live' and key = 'jobflow_jobs'", [json.dumps(value)]
            )

    shown(page, address(airflow, "live"))
    page.run("document.querySelector('main a').focus()")
    try:
        note(noted(job(status="RUNNING", reason="Half of it is done")))
        page.run("document.dispatchEvent(new Event('visibilitychange'))")
        page.until("document.body.innerText.includes('Half of it is done')")
    finally:
        note(CASES["live"][1]["jobflow_jobs"])


def test_ten_thousand_children_are_drawn_without_a_stall(page: Page, airflow: Server, record_property: Any) -> None:
    """The figures are reported, not asserted, because they depend on the machine."""
    page.before_scripts(
        "window.stalls = []; new PerformanceObserver((list) => list.getEntries().forEach((each) =>"
        " window.stalls.push(each.duration))).observe({ type: 'longtask', buffered: true })"
    )
    shown(page, address(airflow, "array_failed"))
    figures = page.run(
        "({ shown: performance.getEntriesByName('shown')[0].startTime,"
        " paint: performance.getEntriesByName('first-contentful-paint')[0]?.startTime, stalls: window.stalls })"
    )
    for name, value in figures.items():
        record_property(name, value)
    sys.stdout.write(f"10,000 children: {figures}\n")  # shown by pytest -rP
    cells = page.run(
        "(() => { const canvas = document.querySelector('canvas'); const pixels = canvas.getContext('2d')"
        ".getImageData(0, 0, canvas.width, canvas.height).data; const seen = new Set(); for (let at = 0;"
        " at < pixels.length; at += 4) if (pixels[at + 3] === 255) seen.add(pixels.slice(at, at + 3).join());"
        " return seen.size })()"
    )
    assert cells >= 2, "succeeded and failed ones have colours of their own"
