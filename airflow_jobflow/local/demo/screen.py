"""Print lines and tables to a terminal."""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections.abc import Sequence
from typing import Final, TextIO

COLORS: Final = {"SUCCEEDED": 32, "RUNNING": 36, "FAILED": 31, "INTERRUPTED": 33}
"""ANSI colours of the statuses of jobs."""
DIM: Final = 2
BOLD: Final = 1
STATUS: Final = re.compile(rf"\b({'|'.join(COLORS)})\b")
BAR: Final = "│"


class Screen:
    """Prints lines. Thread-safe: lines of several threads do not mix.

    :param out: where to print. Colours are used only if it is a terminal and NO_COLOR is not set.
    """

    def __init__(self, out: TextIO = sys.stdout) -> None:
        self._out = out
        self._colored = out.isatty() and not os.environ.get("NO_COLOR")
        self._started = time.monotonic()
        self._lock = threading.Lock()
        self.width = 0
        """Width of the name column of `event`, in characters."""

    def print(self, text: str = "", *, bold: bool = False) -> None:
        """Print a line.

        :param text: the line. Default: empty.
        :param bold: whether to print it in bold. Default False.
        """
        with self._lock:
            print(self._paint(text, BOLD) if bold else text, file=self._out, flush=True)

    def event(self, name: str, text: str) -> None:
        """Print a line of the live stream, with the elapsed time.

        :param name: whose line it is.
        :param text: what happened.
        """
        elapsed = time.monotonic() - self._started
        margin = self._paint(f"{elapsed:5.1f} s  {name:<{self.width}} {BAR}", DIM)
        self.print(f"{margin} {self.colored(text)}")

    def colored(self, text: str) -> str:
        """Return a text with the statuses in it coloured.

        :param text: the text.
        """
        return STATUS.sub(lambda found: self._paint(found[0], COLORS[found[0]]), text)

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table, with columns of numbers aligned right.

        :param header: the column titles.
        :param rows: the cells.
        """
        columns = list(zip(header, *rows, strict=True))
        widths = [max(map(len, column)) for column in columns]
        numbers = [all(cell.replace(".", "", 1).isdigit() for cell in column[1:]) for column in columns]
        for line in (header, ["─" * width for width in widths], *rows):
            cells = [
                cell.rjust(width) if number else cell.ljust(width)
                for cell, width, number in zip(line, widths, numbers, strict=True)
            ]
            self.print(self.colored("  ".join(cells).rstrip()))

    def _paint(self, text: str, code: int) -> str:
        return f"\033[{code}m{text}\033[0m" if self._colored else text
