"""Run the script of a Glue job, and tag the lines of its two streams. Run as a script, in its own process.

``runner.py <file> <name> <argument>…`` moves the file to ``glue-python-scripts/<name>`` in its working directory and
runs it. It writes all output to standard output by complete lines, each after a character that identifies its stream.

Invariants: it ends when the script's process has ended and the output is written, with the same exit code. It ignores
SIGTERM, which the script receives, too. It imports nothing of this package, so that it starts quickly.
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
"""Exit code of a script that a signal ended: 128 plus the number of the signal."""
LAST_OUTPUT_TIMEOUT: Final = 1.0
"""Seconds to wait for the end of the output of an ended script, as a daemon may hold it open."""

_whole_lines = threading.Lock()


def main(file: str, name: str, arguments: list[str]) -> int:
    """Run the script, and return its exit code.

    :param file: the path of the script.
    :param name: the name to run it as.
    :param arguments: its arguments.
    """
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
    """Write the lines of a stream to standard output.

    :param stream: the stream.
    :param tag: the character before each line.
    """
    for line in stream:
        with _whole_lines:
            sys.stdout.buffer.write(tag.encode() + line.removesuffix(b"\n") + b"\n")
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    exit_code = main(sys.argv[1], sys.argv[2], sys.argv[3:])
    with _whole_lines:
        os._exit(exit_code)  # even if a daemon still holds the output open
