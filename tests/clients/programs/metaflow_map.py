"""A flow of Metaflow whose middle step is a Batch job per item; that of one item fails the first time.

A job of Metaflow installs its packages with ``python -m pip`` in its container. The jobs of the local AWS are processes
of this machine: they get the Python that has Metaflow, and install nothing.
"""

import sys
from pathlib import Path

from metaflow import FlowSpec, batch, current, environment, retry, step

IN_THE_JOB = {
    "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
    "METAFLOW_SKIP_INSTALL_DEPENDENCIES": "1",
}
FLAKY = 2


class Squares(FlowSpec):
    """Squares numbers."""

    @step
    def start(self) -> None:
        """Choose the items."""
        self.items = [1, FLAKY, 3]
        self.next(self.square, foreach="items")

    @environment(vars=IN_THE_JOB)
    @retry(times=1, minutes_between_retries=0)
    @batch
    @step
    def square(self) -> None:
        """Square one number."""
        if self.input == FLAKY and current.retry_count == 0:
            raise RuntimeError("The first attempt fails")
        self.result = self.input**2
        self.next(self.join)

    @step
    def join(self, inputs: list[FlowSpec]) -> None:
        """Gather the results from S3."""
        self.results = [each.result for each in inputs]
        self.next(self.end)

    @step
    def end(self) -> None:
        """Print the results."""
        print("results:", *self.results)  # noqa: T201


if __name__ == "__main__":
    Squares()
