"""``python -m airflow_jobflow.local``: a local AWS in a process of its own, until SIGINT or SIGTERM."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from typing import TYPE_CHECKING

from airflow_jobflow.local.batch_attempts import Settings
from airflow_jobflow.local.samples import provision
from airflow_jobflow.local.server import LOOPBACK, LocalAws

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until told to stop; returns the exit code."""
    given = _parser().parse_args(arguments)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        server = LocalAws(
            given.port,
            given.slots,
            settings=Settings(given.time_scale, given.stuck_after, given.stop_grace),
            host=given.host,
            allow_remote_code_execution=given.allow_remote_code_execution,
        )
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    with server as aws:
        if given.samples:
            provision(aws.endpoint_url)
        print(f"ready on {aws.endpoint_url}", flush=True)
        stop.wait()
    return 0


def _parser() -> argparse.ArgumentParser:
    defaults = Settings()
    parser = argparse.ArgumentParser(
        "python -m airflow_jobflow.local",
        description="AWS on this machine: moto, and Batch jobs that run as local processes of yours.",
    )
    add = parser.add_argument
    add("--port", type=int, default=5000, help="port to listen on; 0 takes a free one (default: %(default)s)")
    add("--slots", type=int, default=4, help="jobs that run at the same time (default: %(default)s)")
    add("--samples", action="store_true", help="create the queues and job definitions of the sample DAGs")
    add("--host", default=LOOPBACK, help="address to listen on (default: %(default)s)")
    add(
        "--allow-remote-code-execution",
        action="store_true",
        help="listen beyond loopback: whoever reaches it can run commands as this user",
    )
    add(
        "--time-scale",
        type=float,
        default=defaults.time_scale,
        help="multiply attempt time-outs by this: 0.02 turns 60 s into 1.2 s (default: %(default)s)",
    )
    add(
        "--stuck-after",
        type=float,
        default=defaults.stuck_after,
        help="seconds until a stuck job shows MISCONFIGURATION (default: %(default)s)",
    )
    add(
        "--stop-grace",
        type=float,
        default=defaults.stop_grace,
        help="seconds between SIGTERM and SIGKILL for a terminated job (default: %(default)s)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
