"""RESULTS.md and the plot, from the figures of a run.

``python -m benchmarks.report`` writes both again from ``results.json``, which contains all measurements.
"""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import tables
from benchmarks.faults.report import STACK, TITLE
from benchmarks.figures import NAMES, MapRunner, Results, Run, Side
from benchmarks.logs.__main__ import TITLE as LOGS
from benchmarks.runs import KILLED_AT
from benchmarks.services import SERVICES

AGAIN = "uv run --group bench python -m benchmarks.waits"

OTHERS = (LOGS, TITLE, STACK)
"""The headings of the sections of ``benchmarks.logs``, ``benchmarks.faults`` and ``benchmarks.stack``."""


def write(results: Results, folder: Path) -> Path:
    """Write the report, the plot and the raw figures into a folder, and return the report's path."""
    folder.mkdir(parents=True, exist_ok=True)
    raw = json.dumps(results.to_dict(), separators=(",", ":"))
    (folder / "results.json").write_text(raw + "\n")
    if any(run.side == "amazon" for run in results.runs):
        from benchmarks.plot import plot  # matplotlib is only in the group bench

        plot(results, folder / "waits.svg")
    report = folder / "RESULTS.md"
    # Sections of other benchmarks are kept.
    text = report.read_text() if report.exists() else ""
    others = min((at for at in map(text.find, OTHERS) if at >= 0), default=len(text))
    report.write_text("\n\n".join([*_sections(results), text[others:]]).rstrip("\n") + "\n")
    return report


def _sections(results: Results) -> list[str]:
    sections = ["# What waiting costs", _preface(results)]
    if any(run.side == "amazon" for run in results.runs):
        sections += ["![Calls, CPU, memory and delay of both sides, by the number of waits and by service](waits.svg)"]
    most = {service: max(numbers) for service in SERVICES if (numbers := results.compared(service))}
    pairs = [pair for service, waits in most.items() for pair in results.pairs(service, waits)]
    if pairs:
        waits = max(most.values())
        sections += [f"## {waits:,} waits of each service", f"{_jobs(pairs[0][0])} In short, our part of theirs:"]
        sections += [tables.summary(pairs, required=waits == tables.LARGE)]
    for ours, theirs in pairs:
        required = ours.scenario.waits == tables.LARGE
        sections += [
            f"### {tables.title(ours)}",
            _calls(ours, theirs),
            tables.compared(ours, theirs, required=required),
        ]
    fewer = [waits for waits in reversed(results.compared("batch")) if waits != most["batch"]]
    for waits in fewer:
        for ours, theirs in results.pairs("batch", waits):
            sections += [f"## {waits:,} waits of Batch", tables.compared(ours, theirs, required=False)]
    for run in results.alone:
        throttled = f", throttled at {run.scenario.throttle} calls/s" if run.scenario.throttle else ""
        sections += [f"## {run.scenario.waits:,} waits of Batch{throttled}", _jobs(run), tables.many(run)]
    if results.maps:
        sections += ["## Maps", _maps(results.maps[0]), tables.maps(results.maps)]
    if results.imports:
        sections += ["## Importing the operators"]
        sections += ["After `import airflow.sdk`, in fresh processes with warm caches, the median."]
        sections += [tables.imports(results)]
    return [*sections, "## How it is measured", _method(results)]


def _preface(results: Results) -> str:
    machine = ", ".join(f"{name}: {value}" for name, value in results.machine.items())
    quick = " **A quick try: fewer waits and shorter jobs than the figures are for.**" if results.quick else ""
    versions = {run.side: run.waited.process.versions for run in results.runs}
    rows = []
    if versions:
        packages = list(dict.fromkeys(package for side in versions.values() for package in side))
        sides: list[Side] = ["amazon", "jobflow"]
        rows = [[package, *(versions.get(side, {}).get(package, "-") for side in sides)] for package in packages]
    versions_table = tables.table(["", *(NAMES[side] for side in sides)], rows) if rows else ""
    triggers = ", ".join(f"`{service.trigger}`" for service in SERVICES.values())
    return (
        f"Waits for AWS Batch jobs, Fargate tasks, Glue crawls and Glue job runs in one event loop, as a triggerer "
        f"holds them: this package's `JobTrigger` and the Amazon provider's triggers ({triggers}), against the same "
        f"metered stand-in for AWS; and maps, for which the Amazon provider has no operator. In one run on "
        f"{results.date} that took {results.minutes:.0f} minutes.{quick} Compare ratios; the absolute figures are this "
        f"machine's. Again: `{AGAIN}`, one part of it with `--only`.\n\n{machine}.\n\n{versions_table}"
    ).strip()


def _jobs(run: Run) -> str:
    asked = run.scenario
    budget = f" Our budget: {asked.budget:g} calls/s for each connection, region and service."
    throttle = f" The stand-in answers {asked.throttle} calls/s and throttles the rest." if asked.throttle else ""
    return (
        f"Jobs of {asked.shortest:g} to {asked.longest:g} s that all start at once, polled every "
        f"{asked.interval} s.{budget}{throttle}"
    )


def _calls(ours: Run, theirs: Run) -> str:
    """Return which calls each side made, and a remark on the comparison."""
    service = SERVICES[ours.scenario.service]
    made = "; ".join(
        f"{name}: " + ", ".join(f"{count:,} `{operation}`" for operation, count in run.meter.by_operation.items())
        for name, run in ((f"`{service.trigger}`", theirs), ("ours", ours))
    )
    shared = ""
    if ours.scenario.scopes != theirs.scenario.scopes:
        shared = (
            f" Their run is the one of {theirs.scenario.scopes} jobs: their calls do not depend on which job a run "
            "belongs to."
        )
    return f"{service.remark}{shared} Calls of {made}.".strip()


def _maps(run: MapRunner) -> str:
    asked = run.scenario
    return (
        f"`BatchMapOperator`, each map in one task instance: jobs of {asked.shortest:g} to {asked.longest:g} s from "
        f"their submit on, polled every {asked.interval} s, as many at a time as there are items. The stand-in "
        f"takes {asked.latency:g} s for an answer; AWS allows {tables.RATE:g} submits/s. Where the triggerer is killed "
        f"(SIGKILL, when {KILLED_AT:.0%} of the items have a job), its figures are those of the one that takes over."
    )


def _method(results: Results) -> str:
    late = sorted({name for run in results.runs for name in run.waited.process.late_imports})
    sizes = sorted({run.meter.answer_bytes for run in results.runs})
    slowest = max((run.meter.slowest for run in results.runs), default=0.0)
    busy = max((run.meter.cpu / max(run.scenario.longest, 1) for run in results.runs), default=0.0)
    evidence = (
        f"In this run one job took {sizes[0]:,} to {sizes[-1]:,} bytes of an answer; the stand-in needed at most\n  "
        f"{slowest * 1000:.1f} ms to make an answer and {busy:.1%} of one core, so nobody waited for it."
        if sizes
        else ""
    )
    imported = (
        f"Imported while waiting, and therefore counted: {', '.join(late)}." if late else "Nothing was imported later."
    )
    return f"""\
- Each side has its own process. The Amazon provider's runs of {tables.LARGE:,} waits, our runs of 10,000 and the
  largest map have the machine to themselves. Its runs of fewer waits run at the same time, and so do all of ours of
  up to {tables.LARGE:,}, which take hardly any CPU; where they disturb each other, the figures are worse.
- Either side's triggers are started one after the other with a pause for the loop, as in the triggerer, and
  iterated to their end. No retries of tasks, no database: the waits alone. What a worker does before and after them,
  such as the two `ListCrawls` of a crawl, is not counted, on neither side.
- CPU (user and system, all threads) and the peak of resident memory are counted from after the imports, so what both
  sides share, Airflow and botocore, counts for neither; building triggers, clients and connections does.
  {imported}
- A step on the event loop is the time that it is away from its selector, in which what is due must wait. The time for
  which Python's garbage collector stopped it is subtracted, and given separately: it grows with all objects of the
  process, and most of them are Airflow's. This package leaves the collector as it is. The part of the step that was
  CPU of the loop's own thread is given too; the rest went to other threads, or to other processes of the machine.
- A delay runs from the scripted end of the job to the trigger's event. One job in twenty fails; an answer counts only
  if it reports this, as far as the trigger can. With one poll every 5 s, the best possible p99 is about 5 s.
- The stand-in answers as AWS does, without its latency but for maps; every kind of answer is checked against botocore's
  models before anything is measured. {evidence}
- A map's worker, triggerer and second worker have their own processes, which pass on what Airflow would pass on. The
  DAG's file spells out all items, each with a command and two variables, and either worker renders them; the import of
  our operators counts as theirs. One item in twenty fails, which is tolerated.
- The Amazon provider has its own environment (`.venv-amazon`), because aiobotocore pins botocore."""


if __name__ == "__main__":
    here = Path(__file__).parent
    print(write(Results.from_dict(json.loads((here / "results.json").read_text())), here))
