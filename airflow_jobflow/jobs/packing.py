"""Many lines of JSON as one compact string: what a map's trigger carries, and what it brings back.

One string, for Airflow walks every dict and list that it stores; lines, for ten thousand need never be objects all at
once.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterable, Iterator


def pack(lines: Iterable[str]) -> str:
    """Pack lines, none of which holds a line break."""
    return base64.b64encode(zlib.compress("\n".join(lines).encode())).decode()


def unpack(packed: str) -> list[str]:
    """Return the lines that ``pack`` was given; none holds less than a character."""
    text = zlib.decompress(base64.b64decode(packed)).decode()
    return text.split("\n") if text else []


def chunks(packed: str, size: int) -> Iterator[str]:
    """Cut a string into pieces of at most so many characters."""
    return (packed[start : start + size] for start in range(0, len(packed), size))
