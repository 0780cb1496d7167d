"""Start a new local AWS on the same port for each line of standard input, and print its endpoint."""

import sys

from airflow_jobflow.local import LocalAws, Settings

# A crawl takes a minute, as on AWS, not as long as this machine needs.
SETTINGS = Settings(stop_grace=1, crawl_seconds=60, crawl_stopping_seconds=60)

port = 0
for _ in sys.stdin:
    if port:
        aws.stop()  # noqa: F821 -- from the previous line
    aws = LocalAws(port, settings=SETTINGS)
    aws.start()
    port = int(aws.endpoint_url.rpartition(":")[2])
    print(aws.endpoint_url, flush=True)  # noqa: T201
