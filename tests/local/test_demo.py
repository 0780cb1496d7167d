"""The demo: its flows end as expected, it reports otherwise, and it leaves no processes or files behind."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from airflow_jobflow.local import LocalAws
from airflow_jobflow.local.demo.follower import JobFollower, LogReader
from airflow_jobflow.local.demo.home import clean_environment, left_running
from airflow_jobflow.local.demo.job_updates import READERS, Change, FamilySummary, Job, of_batch
from airflow_jobflow.local.demo.scenarios import SCENARIOS, Result, Scenario
from airflow_jobflow.local.demo.screen import Screen
from airflow_jobflow.local.samples import provision

TIMEOUT = 600.0
"""Seconds after which the demo is killed."""

BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}
FLOW_1, FLOW_1_FAILING = BY_NAME["flow 1"], BY_NAME["flow 1, failing"]
FLOW_2, FLOW_2_FAILING = BY_NAME["flow 2"], BY_NAME["flow 2, failing"]

USERS_OWN = {
    "AWS_PROFILE": "production",
    "AWS_ENDPOINT_URL_BATCH": "http://127.0.0.1:9",
    "AIRFLOW_CONN_AWS_DEFAULT": "aws://",
    "AIRFLOW__CORE__DAGS_FOLDER": "/nowhere",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "sqlite:////nowhere/airflow.db",
    "HTTP_PROXY": "http://127.0.0.1:9",
}
"""Variables that a user may have set, and the demo must ignore."""


class Place:
    """A folder for the demo, and the folders of a user in which it must not write."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "checkout"
        self.users = folder / "user"
        for name in ("home", "tmp", "work"):
            (self.users / name).mkdir(parents=True)

    def start(self, *scenarios: Scenario) -> subprocess.Popen[str]:
        """Start the demo, by default with its own scenarios."""
        program = ["-m", "airflow_jobflow.local.demo"]
        if scenarios:
            demo = "airflow_jobflow.local.demo"
            names = f"from {demo}.scenarios import Scenario; from {demo}.__main__ import main"
            program = ["-c", f"{names}; import sys; sys.exit(main(sys.argv[1:], {scenarios!r}))"]
        return subprocess.Popen(
            [sys.executable, *program, "--home", str(self.home)],
            cwd=self.users / "work",
            env={**os.environ, **USERS_OWN, "HOME": str(self.users / "home"), "TMPDIR": str(self.users / "tmp")},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *scenarios: Scenario) -> tuple[int, str]:
        """Run the demo, and return its exit code and output."""
        with self.start(*scenarios) as process:
            try:
                said, _ = process.communicate(timeout=TIMEOUT)
            finally:
                process.kill()
        return process.returncode, said

    def remaining_processes(self) -> list[Any]:
        """Return the processes that the demo left running."""
        return [process.cmdline() for process in left_running("HOME", str(self.home / "demo"))]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Folders shared by the tests of this module: the first run creates the database that the others copy."""
    return Place(tmp_path_factory.mktemp("demo"))


@pytest.fixture(scope="module")
def demo(place: Place) -> tuple[int, str]:
    """One run of the demo by a user."""
    return place.run()


def test_every_flow_ends_as_expected(demo: tuple[int, str]) -> None:
    """The exit code, the table and the last line agree."""
    exit_code, said = demo
    assert exit_code == 0, said
    rows = [line.split() for line in said.splitlines() if line.endswith((" yes", " no"))]
    assert [row[-1] for row in rows] == ["yes"] * len(SCENARIOS), said
    assert "Every flow ended as expected." in said


def test_it_prints_what_each_job_does_and_its_last_log_line(demo: tuple[int, str]) -> None:
    """There is a line for the end of each job, with the last line of its output."""
    said = demo[1]
    assert said.count('SUCCEEDED, printed "Hello world"') == 1
    assert said.count('FAILED, exit code 3, printed "input.csv: no such file"') == 1
    assert said.count('SUCCEEDED, printed "RED"') == 2
    assert said.count('FAILED, exit code 1, printed "No ink left for GREEN"') == 1
    assert said.count("notification: ") == 3
    assert "DAG run failed: DescribeJob returned FAILED: AWS Batch Job Failed" in said
    assert 'process-item(broken-item)  RUNNING → FAILED, exit code 1, printed "This item cannot be processed' in said
    assert "process-item(item-02)  PROVISIONING → PENDING → RUNNING → INTERRUPTED, Your Spot Task was" in said
    assert "process-item(item-02)  PROVISIONING → PENDING → RUNNING → SUCCEEDED, printed" in said
    assert "process-item  46 tasks started: 44 SUCCEEDED, 1 INTERRUPTED, 1 FAILED" in said
    assert "crawl of se2_in0  RUNNING → SUCCEEDED, 1 table created" in said
    assert 'SUCCEEDED, printed "Wrote 19 rows to s3://test-glue00/se2/out0/se2_in0.parquet"' in said


def test_it_writes_no_colour_codes_to_a_pipe(demo: tuple[int, str]) -> None:
    """Output to a file is plain text."""
    assert "\033" not in demo[1]


def test_it_leaves_no_process_and_writes_nothing_outside_its_folder(place: Place, demo: tuple[int, str]) -> None:
    """The user's home, the directory of temporary files and the current directory do not change."""
    assert place.remaining_processes() == []
    assert [path for path in place.users.rglob("*") if path.is_file()] == []


def test_a_flow_that_ends_unexpectedly_is_named_with_its_log_and_fails_the_demo(
    place: Place, demo: tuple[int, str]
) -> None:
    """Here, the flow succeeds although a failure is expected."""
    exit_code, said = place.run(replace(FLOW_1, jobs={"FAILED": 1}))
    assert exit_code == 1
    assert "flow 1 did not end as expected: jobs: SUCCEEDED; expected: FAILED" in said
    assert str(place.home / "demo" / "flow-1.log") in said
    assert "DagRun Finished" in said
    assert "Every flow" not in said


def test_ctrl_c_stops_airflow_and_its_jobs(place: Place, demo: tuple[int, str]) -> None:
    """This includes a job that would run for an hour."""
    sleep = {"command": ["sh", "-c", "echo sleeping; sleep 3600"]}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it in what it runs in the background
    with place.start(replace(FLOW_1, conf={**FLOW_1.conf, "containerOverrides": sleep})) as process:
        assert process.stdout is not None
        try:
            assert any("→ RUNNING" in line for line in process.stdout)
            assert place.remaining_processes()
            process.send_signal(signal.SIGINT)
            said, _ = process.communicate(timeout=TIMEOUT)  # shorter than the job
        finally:
            process.kill()
    assert process.returncode == 130, said
    assert "No processes are left running" in said
    assert place.remaining_processes() == []


def test_a_second_demo_at_the_same_time_is_rejected(place: Place, demo: tuple[int, str]) -> None:
    """It would delete files that the first one uses."""
    with place.start(FLOW_1) as first:
        assert first.stdout is not None
        first.stdout.readline()
        exit_code, said = place.run(FLOW_1)
        first.send_signal(signal.SIGINT)
        first.communicate(timeout=TIMEOUT)
    assert exit_code == 2
    assert "is in use" in said


def test_the_users_settings_are_not_inherited(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Only variables that are known to be harmless are inherited."""
    for name, value in USERS_OWN.items():
        monkeypatch.setenv(name, value)
    assert not set(USERS_OWN) & set(clean_environment(tmp_path))


def ended(status: str, exit_code: int, index: int | None = None) -> Job:
    """Return a job that has ended."""
    return Job(f"id-{index}", "name", index, status=status, exit_code=exit_code)


@pytest.fixture
def result(tmp_path: Path) -> Result:
    """Return the expected result of flow 2 with a failing child."""
    log = tmp_path / "log"
    log.write_text("FAILED: 6 of 7 succeeded, failed: [3]")
    children = tuple(ended("FAILED", 1, 3) if index == 3 else ended("SUCCEEDED", 0, index) for index in range(7))
    return Result(
        scenario=replace(FLOW_2_FAILING, reads=("parquet", "19 rows")),
        jobs=(Job("id", "name", size=7, status="FAILED"), *children),
        exit_code=1,
        seconds=8.0,
        calls=Counter({"batch.SubmitJob": 1}),
        notifications=("FAILED",),
        reads="19 rows",
        log=log,
    )


def test_a_result_as_expected_has_no_problems(result: Result) -> None:
    """It has seven children, one of which fails, and one notification."""
    assert result.problems() == []
    assert result.jobs_started() == "1 + 7"
    assert result.how_jobs_ended() == "array FAILED, children 6 SUCCEEDED, 1 FAILED (exit code 1)"


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({"exit_code": 0}, "the run succeeded"),
        ({"exit_code": None}, "the run did not end and was stopped"),
        ({"jobs": ()}, "jobs: none; expected: FAILED"),
        ({"notifications": ("a", "b")}, "notifications: 2; expected: 1"),
        ({"reads": "3 rows"}, "output: 3 rows; expected: 19 rows"),
        ({"left": (4711,)}, "job process 4711 is still running"),
        ({"log": Path(os.devnull)}, "the log does not contain “FAILED: 6 of 7 succeeded, failed: [3]”"),
    ],
)
def test_every_deviation_is_reported(result: Result, change: dict[str, Any], wrong: str) -> None:
    """Each single deviation changes the exit code to 1."""
    assert wrong in replace(result, **change).problems()


def test_a_job_submitted_twice_is_reported(result: Result) -> None:
    """One attempt starts one job, so the number of jobs is compared too."""
    assert replace(result, jobs=(*result.jobs, ended("SUCCEEDED", 0))).problems() == [
        "jobs: 1 SUCCEEDED, 1 FAILED; expected: FAILED"
    ]


def test_statuses_are_reported_in_order_and_once() -> None:
    """Events are delivered at least once, in any order."""
    job = Job("id", "name")
    for status in ("RUNNABLE", "RUNNING", "STARTING", "RUNNING", "FAILED", "SUCCEEDED"):
        job.record(of_batch({"jobId": "id", "jobName": "name", "status": status}))
    assert job.unreported == ["RUNNABLE", "RUNNING", "FAILED"]


def test_a_change_reads_as_a_sentence() -> None:
    """It has the job, its statuses, its end, and its output."""
    change = Change(ended("FAILED", 1, 3), ("RUNNING", "FAILED"), "no ink")
    assert str(change) == 'name[3]  RUNNING → FAILED, exit code 1, printed "no ink"'


def test_a_family_is_summarized_by_totals() -> None:
    """Nobody reads 45 lines about starting tasks."""
    counts = Counter({"RUNNING": 4, "PENDING": 6, "SUCCEEDED": 33, "FAILED": 1, "INTERRUPTED": 1})
    summary = FamilySummary("process-item", counts)
    assert str(summary) == "process-item  45 tasks started: 4 RUNNING, 33 SUCCEEDED, 1 INTERRUPTED, 1 FAILED"
    assert (summary.started, summary.ended) == (45, 35)


@pytest.mark.parametrize(
    ("now", "is_news"),
    [
        ({"RUNNING": 9, "SUCCEEDED": 1}, False),
        ({"RUNNING": 16, "SUCCEEDED": 4}, True),
        ({"SUCCEEDED": 10}, True),
        ({"RUNNING": 4, "SUCCEEDED": 6}, False),
    ],
)
def test_a_summary_is_printed_in_steps(now: dict[str, int], is_news: bool) -> None:
    """A line for each poll would be too many; the last one is always printed."""
    assert (
        FamilySummary("a", Counter(now)).differs_enough_from(FamilySummary("a", Counter({"RUNNING": 10})), 10)
        is is_news
    )


def task_event(stop_code: str | None, exit_code: int | None, status: str = "STOPPED") -> dict[str, Any]:
    """Return the members of ECS's event that are read."""
    environment = [{"name": "INPUT_KEY", "value": "fargate_map/input/item-07.json"}]
    return {
        "taskArn": "arn:aws:ecs:us-east-1:1:task/jobflow/abc",
        "taskDefinitionArn": "arn:aws:ecs:us-east-1:1:task-definition/process-item:1",
        "lastStatus": status,
        "stopCode": stop_code,
        "stoppedReason": "Because.",
        "containers": [{"name": "process-item", "runtimeId": "abc-1", "exitCode": exit_code}],
        "overrides": {"containerOverrides": [{"name": "process-item", "environment": environment}]},
    }


@pytest.mark.parametrize(
    ("stop_code", "exit_code", "status", "note"),
    [
        ("EssentialContainerExited", 0, "SUCCEEDED", ""),
        ("EssentialContainerExited", 3, "FAILED", ""),
        ("SpotInterruption", 0, "INTERRUPTED", "Because"),
        ("TaskFailedToStart", None, "FAILED", "Because"),
    ],
)
def test_the_end_of_a_task_is_derived_from_its_stop_code(
    stop_code: str, exit_code: int | None, status: str, note: str
) -> None:
    """ECS itself calls all ends STOPPED."""
    seen = READERS["ECS Task State Change"](task_event(stop_code, exit_code))
    assert seen is not None
    assert (seen.name, seen.status, seen.note) == ("process-item(item-07)", status, note)


def test_short_lived_statuses_are_omitted() -> None:
    """Nobody needs to know that a task was DEPROVISIONING."""
    assert READERS["ECS Task State Change"](task_event("EssentialContainerExited", 0, "DEPROVISIONING")) is None


def test_crawls_of_one_crawler_are_distinguished() -> None:
    """Events have only the crawler; a crawl that was started twice must be counted twice."""
    with LocalAws() as aws:
        provision(aws.endpoint_url)
        follower = JobFollower(aws)
        glue = aws.client("glue")
        lines: list[str] = []
        for number in (1, 2):
            glue.start_crawler(Name="se2_in0")
            deadline = time.monotonic() + TIMEOUT
            while not (follower.all_ended and len(follower.jobs) == number):
                lines += map(str, follower.poll())
                assert time.monotonic() < deadline
        assert follower.calls.keys().isdisjoint({"glue.ListCrawls", "glue.GetCrawler"})
    assert [line for line in lines if "1 table created" in line]
    assert [job.status for job in follower.jobs.values()] == ["SUCCEEDED", "SUCCEEDED"]


@pytest.fixture
def log_reader(tmp_path: Path) -> Iterator[tuple[Path, LogReader]]:
    """A log and its reader."""
    log = tmp_path / "log"
    log.touch()
    reader = LogReader(log)
    yield log, reader
    reader.close()


def test_a_log_is_read_while_it_is_written(log_reader: tuple[Path, LogReader]) -> None:
    """Half a line waits for the next poll; brackets in a notification are part of it."""
    log, reader = log_reader
    with log.open("a") as file:
        file.write("2026 [info     ] Notification: a FAILED, fai")
        file.flush()
        assert reader.poll() == []
        file.write("led: [3] [a.logger] loc=x.py:1\nWhy: no ink\nother\n")
        file.write("2026 [info     ] Branch into load    [a.logger] loc=branch.py:40\n")
    assert reader.poll() == ["notification: a FAILED, failed: [3]", "why: no ink", "branch: load"]
    assert reader.notifications == ["a FAILED, failed: [3]"]


class Terminal(io.StringIO):
    """A text stream that claims to be a terminal."""

    def isatty(self) -> bool:
        """Return True."""
        return True


@pytest.mark.parametrize(("no_color", "colored"), [("", True), ("1", False)])
def test_colours_are_printed_on_terminals_only(monkeypatch: pytest.MonkeyPatch, no_color: str, colored: bool) -> None:
    """NO_COLOR disables them, as defined by https://no-color.org."""
    monkeypatch.setenv("NO_COLOR", no_color)
    terminal = Terminal()
    Screen(terminal).event("flow", "RUNNING → FAILED")
    assert ("\033[31mFAILED\033[0m" in terminal.getvalue()) is colored


def test_the_columns_of_a_table_are_aligned() -> None:
    """Numbers are aligned right."""
    out = io.StringIO()
    Screen(out).table(("Flow", "Seconds"), [("a", "9.5"), ("longer", "10.5")])
    assert out.getvalue().splitlines() == ["Flow    Seconds", "──────  ───────", "a           9.5", "longer     10.5"]
