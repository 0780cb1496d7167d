"""Packs many lines of JSON into one compact string, for the arguments and the events of a map's trigger.

One string, because Airflow walks every dict and list that it stores. Lines, so that ten thousand items need not be
parsed all at once.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterable, Iterator


def pack(lines: Iterable[str]) -> str:
    """Pack lines into one string.

    :param lines: not empty, without line breaks.
    """
    return base64.b64encode(zlib.compress("\n".join(lines).encode())).decode()


def unpack(packed: str) -> list[str]:
    """Return the lines in a packed string.

    :param packed: as ``pack`` returned it.
    """
    text = zlib.decompress(base64.b64decode(packed)).decode()
    return text.split("\n") if text else []


def chunks(packed: str, size: int) -> Iterator[str]:
    """Split a string.

    :param packed: the string.
    :param size: the most characters of a piece.
    """
    return (packed[start : start + size] for start in range(0, len(packed), size))
