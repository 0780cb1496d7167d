"""The benchmark of outages: which waits count as late, the responses of its stand-in, and its report."""

from __future__ import annotations

import asyncio
import gc
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.faults import report
from benchmarks.faults.__main__ import merged
from benchmarks.faults.plan import KINDS, Delays, Endured, Scoped, outages
from benchmarks.figures import Meter, Process, Results, Scenario
from benchmarks.meters import Collections, MeteredSelector, Meters
from benchmarks.report import write
from benchmarks.standin import outage
from benchmarks.standin.script import Answer
from benchmarks.standin.server import Metered

ASKED = Scenario(2, shortest=5, longest=60, interval=10, outage="denied", outage_from=20.0, outage_to=80.0)
METER = Meter(
    calls=[(10.0, "DescribeJobs", 2), (85.0, "DescribeJobs", 2)], throttled=0, cpu=0, slowest=0, answer_bytes=9
)
PROCESS = Process(
    cpu=1, seconds=1, memory=1, resident=1, blocked=0.01, collected=0, collected_before=0, versions={}, late_imports=[]
)
REQUEST = b"POST /v1/describejobs HTTP/1.1\r\nauthorization: AWS4-HMAC-SHA256 Credential=%s/20260101/"


def endured(*told: tuple[float, float]) -> Endured:
    """Return the result of waits with an outage from 20 to 80 s."""
    return Endured(ASKED, PROCESS, list(told), {}, {}, METER)


@pytest.mark.parametrize(
    ("ended", "told", "late"),
    [
        (10, 15, 0.5),  # before the outage
        (10, 85, 0.5),  # the outage began before: late from the recovery on
        (40, 85, 0.5),  # during it
        (40, 79, 0.0),  # described although the outage had begun
        (90, 120, 3.0),  # after it
    ],
)
def test_a_wait_is_late_from_the_recovery_or_its_jobs_end(ended: float, told: float, late: float) -> None:
    """The later of the two counts."""
    assert endured((ended, told)).lateness == [pytest.approx(late)]


def test_a_lost_wait_a_stopped_job_and_a_late_wait_are_detected() -> None:
    """Each alone fails the requirement."""
    assert endured((40, 85), (40, 90)).met
    assert not endured((40, 85)).met
    assert not endured((40, 85), (40, 120)).met
    stopped = Meter(**{**vars(METER), "stops": 1})
    assert not Endured(ASKED, PROCESS, [(40, 85), (40, 85)], {}, {}, stopped).met


class Aws:
    """A stand-in whose clock has started some seconds ago."""

    def __init__(self, seconds: float, **asked: Any) -> None:
        self._metered = Metered(Scenario(3, shortest=60, longest=60, interval=1, outage_to=30.0, **asked))
        self._metered.answer(b"POST /start HTTP/1.1", b"")
        self._metered._started -= seconds

    def answer(self, head: bytes, body: bytes = b'{"jobs": []}') -> Answer | None:
        """Respond to a request."""
        return self._metered.answer(head, body)

    @property
    def meter(self) -> Meter:
        """Return the counts."""
        return self._metered.meter()


@pytest.mark.parametrize("kind", ["denied", "html"])
def test_describe_calls_are_rejected_during_the_outage(kind: str) -> None:
    """They are counted."""
    refused, answered = (Aws(seconds, outage=kind) for seconds in (10, 40))
    answer = refused.answer(REQUEST % b"key")
    assert answer
    assert answer.status == "403 Forbidden"
    assert (len(refused.meter.refused), len(refused.meter.calls)) == (1, 0)
    assert (answer := answered.answer(REQUEST % b"key"))
    assert (answer.status, len(answered.meter.calls)) == ("200 OK", 1)


@pytest.mark.parametrize(
    ("kind", "path", "answers"),
    [("metadata", outage.ROLE_PATH, False), ("container", outage.CREDENTIALS_PATH, True)],
)
def test_there_are_no_credentials_during_the_outage(kind: str, path: str, answers: bool) -> None:
    """A metadata service that is down does not respond."""
    head = f"GET {path} HTTP/1.1".encode()
    answer = Aws(10, outage=kind).answer(head)
    assert bool(answer) == answers
    assert answer is None or answer.status.startswith("500")
    assert (later := Aws(40, outage=kind).answer(head))
    assert later.status == "200 OK"


def test_a_call_with_other_credentials_than_the_connections_finds_no_job() -> None:
    """They belong to another account."""
    aws = Aws(40, outage="connection")
    for key in (b"benchmark", outage.CONNECTION_KEY.encode()):
        aws.answer(REQUEST % key)
    assert (aws.meter.foreign, len(aws.meter.calls)) == (1, 1)


def test_a_stopped_job_is_counted() -> None:
    """This holds in every scenario."""
    aws = Aws(10, outage="denied")
    aws.answer(b"POST /v1/terminatejob HTTP/1.1", b'{"jobId": "a", "reason": "b"}')
    assert aws.meter.stops == 1


def test_every_outage_has_a_kind_and_an_end() -> None:
    """A kind that the stand-in does not know would have no effect."""
    planned = [*outages(1, quick=True), *outages(1, quick=False)]
    assert {scenario.outage for scenario in planned} == set(KINDS)
    assert all(scenario.outage_from < scenario.outage_to < scenario.longest for scenario in planned)


def test_delays_of_several_measurements_are_merged() -> None:
    """The slowest connection is the slowest of all."""
    both = merged([Delays([1.0, 3.0], [1.0], 12.0), Delays([2.0], [2.0], 13.0)])
    assert both == Delays([1.0, 2.0, 3.0], [1.0, 2.0], 13.0)
    assert (both.part(0.5), both.part(1)) == (2.0, 3.0)
    assert merged([Delays([1.0], [1.0], None)]).slow is None


def test_the_report_leaves_other_sections_alone(tmp_path: Path) -> None:
    """It replaces its own section."""
    (tmp_path / "RESULTS.md").write_text("# What waiting costs\n\nA.\n\n## In a whole Airflow\n\nB.\n")
    scoped = Scoped(ASKED, PROCESS, 2, 9, METER)
    conditions = report.Conditions("2026-01-01", {"cores": "2"}, 1.0, 0.5, quick=False, remark="")
    for waits in ([endured((40, 85))], [endured((40, 85), (40, 90))]):
        report.write(waits, [scoped], [Delays([1.0], [1.0], 12.0)], conditions, tmp_path)
    text = (tmp_path / "RESULTS.md").read_text()
    assert [line for line in text.splitlines() if line.startswith("## ")] == [report.TITLE, report.STACK]
    assert "A.\n\n## When" in text
    assert text.endswith("## In a whole Airflow\n\nB.\n")
    assert "**no**" not in text
    assert json.loads((tmp_path / "faults.json").read_text()).keys() == {"outages", "scopes", "slow"}


# Measuring a step of the event loop.


def test_garbage_collection_is_subtracted_from_a_stretch_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the part within the interval is subtracted."""
    times = iter([1.0, 2.0, 3.0, 5.0])
    monkeypatch.setattr("benchmarks.meters.time.perf_counter", lambda: next(times))
    collections = Collections()
    for phase in ("start", "stop", "start", "stop"):
        collections.note(phase, {})
    assert (collections.longest, collections.total) == (2.0, 3.0)
    assert collections.between(0, 9) == 3.0
    assert collections.between(1.5, 4.0) == 1.5
    assert collections.between(2.0, 3.0) == 0.0


def test_a_step_is_measured_and_collections_are_not_part_of_it() -> None:
    """Garbage collection during a step is reported separately."""
    meters = Meters()

    async def story() -> None:
        await asyncio.sleep(0)
        for _ in range(20):
            gc.collect()
        await asyncio.sleep(0)

    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(meters.selector)) as runner:
        runner.run(story())
    gc.callbacks.remove(meters.collections.note)
    assert meters.collections.total > 0
    assert meters.selector.longest < meters.collections.total
    assert isinstance(meters.selector, MeteredSelector)


def test_the_report_of_waits_keeps_this_section(tmp_path: Path) -> None:
    """Each benchmark writes only its own section."""
    (tmp_path / "RESULTS.md").write_text(f"# Old\n\n## Provisional\n\n{report.TITLE}\n\nA.\n\n{report.STACK}\n\nB.\n")
    text = write(Results("2026-01-01", {}, [], [], {}, 1.0, quick=False), tmp_path).read_text()
    assert text.endswith(f"\n\n{report.TITLE}\n\nA.\n\n{report.STACK}\n\nB.\n")
    assert "Provisional" not in text
