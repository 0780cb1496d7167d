"""The AWS SDK for JavaScript: clients, paginators and waiters of Batch, ECS and Glue, on Node.js."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.clients.environments import node_environment

if TYPE_CHECKING:
    from collections.abc import Callable

PACKAGES: Final = tuple(f"@aws-sdk/client-{service}@3.1138.0" for service in ("batch", "ecs", "glue"))
PROGRAM: Final = Path(__file__).parent / "programs" / "sdk.cjs"


def test_jobs_of_each_service_are_started_and_waited_for(run: Callable[..., str]) -> None:
    """The SDK parses each response, converts times to dates, and gets the request id of each response."""
    modules = node_environment("js-sdk", *PACKAGES)
    printed = run(["node", PROGRAM], {"NODE_PATH": str(modules)})
    assert printed.splitlines() == [
        "batch SUCCEEDED 0",
        "children 0 1 2",
        "ecs STOPPED 3",
        "glue SUCCEEDED",
        "crawl COMPLETED",
        "error ClientException 400",
    ]
