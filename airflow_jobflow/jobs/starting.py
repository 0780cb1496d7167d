"""What a start that came to nothing means, for all who start jobs. Pure."""

from __future__ import annotations

import re

LOOKUPS = (1.0, 2.0, 4.0, 8.0)
"""Seconds before each look for a job whose submit got no answer: what was just submitted shows up late."""

FULL = re.compile(r"capacity is unavailable|reached the limit", re.IGNORECASE)
"""Refusals that pass by themselves: a later start may find room."""


class NotStarted(Exception):
    """The service answered a start, and started nothing; the words are its own."""
