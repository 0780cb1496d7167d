"""Run one side or one map in new processes with a new stand-in, and print a line with the result."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.figures import NAMES, MapPart, MapRunner, Meter, Run, Scenario, Side, map_part, waited

ROOT = Path(__file__).parent.parent

KILLED_AT = 0.4
"""The share of a map's items with a job at which the triggerer is killed, in a run with a kill."""


@dataclass
class StandIn:
    """A running stand-in, and its counts after its end."""

    url: str
    meter: Meter | None = None


@contextlib.contextmanager
def standin(scenario: Scenario) -> Iterator[StandIn]:
    """Run a stand-in."""
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.standin.server", json.dumps(asdict(scenario))],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        running = StandIn(f"http://127.0.0.1:{int(process.stdout.readline())}")
        try:
            yield running
        finally:
            metered, _ = process.communicate()
        running.meter = Meter(**json.loads(metered))


def run(side: Side, scenario: Scenario, python: Path) -> Run:
    """Run one side in one scenario."""
    with tempfile.TemporaryDirectory(prefix="jobflow-bench-") as home:
        result = Path(home) / "result.json"
        with standin(scenario) as aws:
            subprocess.run(
                [str(python), "-m", "benchmarks.waiters", side, json.dumps(asdict(scenario)), str(result)],
                cwd=ROOT,
                env=environment(home, aws.url, scenario),
                stdout=subprocess.DEVNULL,
                check=True,
                timeout=scenario.longest + 300,
            )
        assert aws.meter
        done = Run(side, scenario, waited(json.loads(result.read_text())), aws.meter)
    process = done.waited.process
    shape = f" of {scenario.scopes} jobs" if scenario.service == "glue_run" else ""
    print(
        f"{NAMES[side]:>16}, {scenario.waits:>6,} of {scenario.service}{shape}: {done.answered:,} answered, "
        f"{done.meter.total:,} calls, {process.cpu:.2f} s CPU ({process.collected_cpu:.2f} s garbage collection), "
        f"{process.memory:,.0f} MB, "
        f"longest step {process.blocked:.3f} s, collection {process.collected:.3f} s, "
        f"delay p99 {done.waited.delay(0.99):.1f} s",
        flush=True,
    )
    return done


def run_map(scenario: Scenario, *, kill: bool = False) -> MapRunner:
    """Run a map; the triggerer may be killed in between, and another one continues."""
    with tempfile.TemporaryDirectory(prefix="jobflow-bench-") as home:
        parts: list[MapPart] = []
        with standin(scenario) as aws:
            start = urllib.request.Request(f"{aws.url}/start", method="POST")
            with urllib.request.urlopen(start) as answer:
                fates: dict[str, tuple[float, bool]] = json.load(answer)
            for name in ("worker", "triggerer", "resume"):
                command = [sys.executable, "-m", "benchmarks.map_process", name, json.dumps(asdict(scenario)), home]
                surroundings = environment(home, aws.url, scenario)
                if kill and name == "triggerer":
                    _run_and_kill(command, surroundings, aws, round(KILLED_AT * scenario.waits))
                subprocess.run(
                    command,
                    cwd=ROOT,
                    env=surroundings,
                    stdout=subprocess.DEVNULL,
                    check=True,
                    timeout=scenario.waits / 20 + scenario.longest + 300,
                )
                parts.append(map_part(json.loads((Path(home) / f"{name}.part.json").read_text())))
        assert aws.meter
        statuses = json.loads((Path(home) / "result.json").read_text())["statuses"]
    right = sum(statuses[int(index)] == "SF"[fails] for index, (_, fails) in fates.items())
    done = MapRunner(scenario, parts, right, int(kill), aws.meter)
    print(
        f"Map of {scenario.waits:,}{', triggerer killed once' * kill}: {right:,} right, {done.meter.twice} twice, "
        f"{done.meter.rate('SubmitJob'):.1f} submits/s, "
        + ", ".join(f"{part.name} {part.process.memory:.0f} MB" for part in parts)
        + f", longest step {parts[1].process.blocked:.3f} s",
        flush=True,
    )
    return done


def _run_and_kill(command: list[str], surroundings: dict[str, str], aws: StandIn, started: int) -> None:
    """Start a process, and kill it once a number of items of the map have a job."""
    with subprocess.Popen(command, cwd=ROOT, env=surroundings, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            with urllib.request.urlopen(f"{aws.url}/started") as answer:
                if int(answer.read()) >= started:
                    break
            time.sleep(0.2)
        assert process.poll() is None, "the triggerer ended before it could be killed"
        process.kill()


def environment(home: str, url: str, scenario: Scenario) -> dict[str, str]:
    """Return the whole environment of a side, without the user's Airflow or AWS."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": home,
        "AIRFLOW_HOME": home,
        "AIRFLOW__JOBFLOW__DESCRIBE_CALLS_PER_SECOND": str(scenario.budget),
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "benchmark",
        "AWS_SECRET_ACCESS_KEY": "benchmark",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "127.0.0.1",
    }
