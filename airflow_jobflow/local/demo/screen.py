"""Lines and tables for a person at a terminal."""

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
WORDS: Final = re.compile(rf"\b({'|'.join(COLORS)})\b")
BAR: Final = "│"


class Screen:
    """Where lines of several threads go, whole and in the order in which they are said.

    :param out: where to; colours only if it is a terminal and NO_COLOR is not set.
    """

    def __init__(self, out: TextIO = sys.stdout) -> None:
        self._out = out
        self._colored = out.isatty() and not os.environ.get("NO_COLOR")
        self._started = time.monotonic()
        self._lock = threading.Lock()
        self.width = 0
        """Of the column that says who speaks."""

    def say(self, text: str = "", *, bold: bool = False) -> None:
        """A line as it is."""
        with self._lock:
            print(self._paint(text, BOLD) if bold else text, file=self._out, flush=True)

    def tell(self, who: str, text: str) -> None:
        """A line of the live stream: when, who, what."""
        passed = time.monotonic() - self._started
        margin = self._paint(f"{passed:5.1f} s  {who:<{self.width}} {BAR}", DIM)
        self.say(f"{margin} {self.colored(text)}")

    def colored(self, text: str) -> str:
        """A text with the statuses in it in colour."""
        return WORDS.sub(lambda word: self._paint(word[0], COLORS[word[0]]), text)

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table; columns of numbers are flush right."""
        columns = list(zip(header, *rows, strict=True))
        widths = [max(map(len, column)) for column in columns]
        numbers = [all(cell.replace(".", "", 1).isdigit() for cell in column[1:]) for column in columns]
        for line in (header, ["─" * width for width in widths], *rows):
            cells = [
                cell.rjust(width) if number else cell.ljust(width)
                for cell, width, number in zip(line, widths, numbers, strict=True)
            ]
            self.say(self.colored("  ".join(cells).rstrip()))

    def _paint(self, text: str, code: int) -> str:
        return f"\033[{code}m{text}\033[0m" if self._colored else text
