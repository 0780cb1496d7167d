"""Invalid input for the tab: each value of valid input is replaced by an invalid one.

The page calls a stand-in for Airflow's API, because only the responses differ.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from tests.ui.cases import CASES, FAILED_JOB, MARKUP, MEMORY, cells, child, job, mapped, noted

BAD: tuple[Any, ...] = (
    None, True, -1, 0.5, 1e300, "", MARKUP, "javascript:window.hacked=1", "9" * 5000, [], [None], {}, {"__proto__": 1},
)  # fmt: skip
"""Invalid values for any place."""

ARRAY = {
    "kind": "array",
    "size": 6,
    "counts": {"succeeded": 3, "failed": 2, "running": 1},
    "cells": cells(6, [1, 4], "."),
    "failed_jobs": [child(1), child(4)],
}
GOOD: dict[str, dict[str, Any]] = {
    **{name: CASES[name][1] for name in ("job", "live", "failed", "refused", "sensor", "crawl")},
    "array": {"jobflow_jobs": noted(job(**FAILED_JOB), array=ARRAY, final=True, diagnosis=MEMORY)},
    "map": {"return_value": mapped(5, [1, 3])},
}
"""Valid, small input."""

STAND_IN = """
window.given = {};
window.fetch = async (url) => {
  const path = new URL(url).pathname, key = path.match(/xcomEntries\\/(\\w+)$/)?.[1];
  const instance = { task_id: 'task', map_index: -1, operator: 'BatchJobOperator', state: 'deferred', try_number: 1 };
  const noted = Object.keys(window.given).map((name) => ({ task_id: 'task', map_index: -1, key: name }));
  return new Response(JSON.stringify(
    key ? { value: window.given[key] }
      : path.endsWith('/xcomEntries') ? { xcom_entries: noted, total_entries: noted.length }
      : path.endsWith('/taskInstances') ? { task_instances: [instance], total_entries: 1 } : instance));
};
window.broken = [];
window.addEventListener('unhandledrejection', (event) => window.broken.push(String(event.reason)));
window.feed = async (all) => {
  const wrong = [];
  for (const given of all) {
    window.given = given;
    window.broken = [];
    performance.clearMarks('shown');
    document.dispatchEvent(new Event('visibilitychange'));
    while (!window.broken.length && !performance.getEntriesByName('shown').length) {
      await new Promise((go) => setTimeout(go));
    }
    const page = document.querySelector('main'), said = page.textContent;
    if (!said || said.includes('cannot be reached')) window.broken.push(said || 'The page is empty');
    if (page.querySelector('img, script') || window.hacked || {}.polluted) window.broken.push('It was obeyed');
    for (const each of page.querySelectorAll('a')) {
      if (!['https:', document.location.protocol].includes(each.protocol)) window.broken.push(each.href);
    }
    if (window.broken.length) wrong.push(`${window.broken.join()} ${JSON.stringify(given).slice(0, 1500)}`);
  }
  return wrong;
};
"""
"""Responds instead of Airflow. ``feed`` shows one response after the other on the page, and returns the errors."""


def places(value: Any, where: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Return every place in a value, including those that contain others; in a list, the first two."""
    if where:
        yield where
    within = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, each in within:
        yield from places(each, (*where, key))


def broken(good: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Return valid input with one invalid value, and with that value missing."""
    for *way, last in places(good):
        for bad in (*BAD, ...):
            whole = copy.deepcopy(good)
            within: Any = whole
            for key in way:
                within = within[key]
            if bad is ...:
                del within[last]
            else:
                within[last] = bad
            yield whole
