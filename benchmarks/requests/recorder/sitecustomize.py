"""Record every HTTP request that a process of Airflow makes, without changing Airflow.

Python imports this module at its start if its directory is on ``PYTHONPATH``. httpx, which Airflow's clients of the
execution API use, logs each request to the logger ``httpx``; Airflow sets that logger to WARNING in every
configuration. So the logger itself is replaced by one that first writes requests to a file. The triggerer calls its API
in-process, also with httpx. Does nothing unless ``JOBFLOW_REQUESTS`` names the file.
"""

from __future__ import annotations

import json
import logging
import os
import time

FILE = os.environ.get("JOBFLOW_REQUESTS")


class RequestLogger(logging.Logger):
    """Writes each request that httpx logs as a line of JSON, and otherwise works like any logger."""

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 -- logging's name
        """Return True for recorded requests at every level."""
        return level >= logging.INFO

    def handle(self, record: logging.LogRecord) -> None:
        """Record a request."""
        if FILE and isinstance(record.args, tuple) and len(record.args) >= 4:
            method, url, _, status, *_ = record.args
            request = {
                "at": time.time(),
                "pid": os.getpid(),
                "instance": os.path.basename(os.environ.get("JOBFLOW_STACK", "")),  # noqa: PTH119 -- loaded by all
                "method": str(method),
                "url": str(url),
                "status": status,
            }
            line = json.dumps(request) + "\n"
            file = os.open(FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                os.write(file, line.encode())  # one write, because processes append to one file
            finally:
                os.close(file)
        if record.levelno >= self.getEffectiveLevel():
            super().handle(record)


if FILE:
    logging.setLoggerClass(RequestLogger)
    logging.getLogger("httpx")
    logging.setLoggerClass(logging.Logger)
