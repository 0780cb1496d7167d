"""``python -m airflow_jobflow.local``: run a local AWS until SIGINT or SIGTERM."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from typing import TYPE_CHECKING, Final

try:
    from airflow_jobflow.local.samples import provision
    from airflow_jobflow.local.server import LOOPBACK, LocalAws
    from airflow_jobflow.local.settings import Settings
except ModuleNotFoundError as error:
    raise SystemExit(
        f"The module {error.name} is missing. Install it with: pip install 'airflow-jobflow[local]'"
    ) from error

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SETTINGS: Final[Mapping[str, str]] = {
    "time_scale": "factor for timeouts: 0.02 turns 60 s into 1.2 s",
    "stuck_after": "seconds until a stuck Batch job shows MISCONFIGURATION",
    "stop_grace": "seconds between SIGTERM and SIGKILL when a job is stopped",
    "stopped_visible": "seconds for which a stopped ECS task can be described",
    "crawl_seconds": "minimum duration of a Glue crawl in seconds",
    "crawl_stopping_seconds": "seconds for which a Glue crawler is STOPPING",
    "start_takes_effect_after": "seconds until a started Glue crawl is visible",
    "instances": "container instances that an ECS cluster gets for EC2, for EXTERNAL, and for each capacity provider",
    "instance_cpu": "CPU units of each container instance",
    "instance_memory": "MiB of each container instance",
}
"""Help texts of the options, by the field of `Settings` that they set."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM.

    :param arguments: the command line. Default: this process's.
    :return: the exit code: 2 if an option is invalid, else 0.
    """
    given = _parser().parse_args(arguments)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        server = LocalAws(
            given.port,
            given.slots,
            settings=Settings(**{name: getattr(given, name) for name in SETTINGS}),
            host=given.host,
            allow_remote_code_execution=given.allow_remote_code_execution,
        )
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    with server as aws:
        if given.samples:
            provision(aws.endpoint_url)
        print(f"ready on {aws.endpoint_url}\npages on {aws.console_url}", flush=True)
        stop.wait()
    return 0


def _parser() -> argparse.ArgumentParser:
    defaults = Settings()
    parser = argparse.ArgumentParser(
        "python -m airflow_jobflow.local",
        description="AWS on this machine: moto's server, with Batch jobs, ECS tasks and Glue job runs as local "
        "processes, and Glue crawlers that read its S3.",
    )
    add = parser.add_argument
    add("--port", type=int, default=5000, help="port to listen on; 0 for a free one (default: %(default)s)")
    add(
        "--slots",
        type=int,
        default=4,
        help="maximum number of jobs, tasks and runs at a time (default: %(default)s)",
    )
    add(
        "--samples",
        action="store_true",
        help="create the resources of the sample DAGs: queues, definitions, a cluster, a crawler, data",
    )
    add("--host", default=LOOPBACK, help="address to listen on (default: %(default)s)")
    add(
        "--allow-remote-code-execution",
        action="store_true",
        help="allow a --host other than loopback: everybody who can reach it can run commands as this user",
    )
    for name, meaning in SETTINGS.items():
        default = getattr(defaults, name)
        option = f"--{name.replace('_', '-')}"
        add(option, type=type(default), default=default, help=f"{meaning} (default: %(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
