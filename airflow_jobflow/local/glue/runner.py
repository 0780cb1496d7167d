"""Runs the script of a Glue job, and keeps its two streams apart. Run as a script, in a process of its own.

``glue_runner.py <file> <name> <argument>…`` takes the file over as ``glue-python-scripts/<name>`` in its working
directory and runs it. All it writes is passed on to standard output by whole lines, each behind a character that says
which stream it came from.

What always holds: it ends when the script's process has ended and its output is passed on, with the same exit code;
SIGTERM is the script's to heed. It imports nothing of this package, so that it starts quickly.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Final

OUTPUT: Final = ">"
ERROR: Final = "!"
DIRECTORY: Final = "glue-python-scripts"
SIGNALLED: Final = 128
"""Exit code of a script ended by a signal: 128 and the signal's number."""
LAST_OUTPUT_TIMEOUT: Final = 1.0
"""Seconds to wait for the end of the output of a script that ended, for a daemon may hold it open."""

_whole_lines = threading.Lock()


def main(file: str, name: str, arguments: list[str]) -> int:
    """Run the script; its exit code."""
    signal.signal(signal.SIGTERM, lambda *_: None)
    script = Path(DIRECTORY).absolute() / name
    script.parent.mkdir()
    shutil.move(file, script)
    process = subprocess.Popen(
        [sys.executable, str(script), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    pumps = [
        threading.Thread(target=pump, args=(stream, tag), daemon=True)
        for stream, tag in ((process.stdout, OUTPUT), (process.stderr, ERROR))
    ]
    for each in pumps:
        each.start()
    code = process.wait()
    for each in pumps:
        each.join(LAST_OUTPUT_TIMEOUT)
    return code if code >= 0 else SIGNALLED - code


def pump(stream: IO[bytes], tag: str) -> None:
    """Pass on the lines of one stream."""
    for line in stream:
        with _whole_lines:
            sys.stdout.buffer.write(tag.encode() + line.removesuffix(b"\n") + b"\n")
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    exit_code = main(sys.argv[1], sys.argv[2], sys.argv[3:])
    with _whole_lines:
        os._exit(exit_code)  # whatever still holds the script's output open
