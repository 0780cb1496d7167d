"""The cost of waiting for a whole Airflow: ``python -m benchmarks.stack``, from the repository's root; see ``--help``.

Each part is a separate process, and writes its figures into ``.home/bench-stack``; the report is made from these files,
so that a part can be measured again alone. Parts run one after the other, because each needs the whole machine.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from benchmarks.runs import ROOT
from benchmarks.stack.environment import amazon_stack_python
from benchmarks.stack.report import Part, write
from benchmarks.together import machine

FIGURES: Final = ROOT / ".home" / "bench-stack"
PARTS: Final = ("jobflow", "amazon", "starts", "many", "events")


def commands(sizes: argparse.Namespace) -> Mapping[str, Sequence[str]]:
    """Return the arguments of each part, without the file for its figures."""
    return {
        "jobflow": ["benchmarks.stack.side", "jobflow", str(sizes.waits)],
        "amazon": ["benchmarks.stack.side", "amazon", str(sizes.waits)],
        "starts": ["benchmarks.stack.starts", str(sizes.starts)],
        "many": ["benchmarks.stack.many", str(sizes.many), str(sizes.seconds)],
        "events": ["benchmarks.events", str(sizes.woken)],
    }


def measure(name: str, command: Sequence[str]) -> Path:
    """Run a part, and return the file with its figures."""
    python = amazon_stack_python() if name == "amazon" else Path(sys.executable)
    FIGURES.mkdir(parents=True, exist_ok=True)
    out, began = FIGURES / f"{name}.json", time.monotonic()
    measured = out.with_suffix(".part")
    environment = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    subprocess.run([str(python), "-m", *command, str(measured)], cwd=ROOT, env=environment, check=True)
    minutes = (time.monotonic() - began) / 60
    figures = {**json.loads(measured.read_text()), "date": f"{datetime.now(UTC):%Y-%m-%d}", "minutes": minutes}
    out.write_text(json.dumps(figures) + "\n")
    measured.unlink()
    print(f"{name}: {minutes:.1f} minutes", flush=True)
    return out


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the parts, and write the report's section."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stack", description=__doc__)
    parser.add_argument("--only", choices=PARTS, action="append", help="only this part; may be repeated")
    parser.add_argument("--waits", type=int, default=500, help="mapped waits of either side (default: %(default)s)")
    parser.add_argument(
        "--starts", type=int, default=2000, help="operators started in one triggerer (default: %(default)s)"
    )
    parser.add_argument("--many", type=int, default=10_000, help="waits on one triggerer (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=600, help="seconds for which these run (default: %(default)s)")
    parser.add_argument("--woken", type=int, default=100, help="waits woken by events (default: %(default)s)")
    parser.add_argument("--report", action="store_true", help="only write the report from existing figures")
    parser.add_argument("--remark", default="", help="a remark on these figures, for the report")
    options = parser.parse_args(arguments)
    planned = commands(options)
    for name in () if options.report else options.only or PARTS:
        measure(name, planned[name])
    parts = {}
    for name in PARTS:
        if (file := FIGURES / f"{name}.json").exists():
            data = json.loads(file.read_text())
            parts[name] = Part(data["date"], data["minutes"], data["versions"], data)
    write(parts, machine(), options.remark, ROOT / "benchmarks" / "RESULTS.md")


if __name__ == "__main__":
    main()
