"""Bad input for the tab: of what is well, each value in turn is replaced by one that should not be there.

The page asks a stand-in for Airflow's API, for only what it is answered differs.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from tests.ui.cases import CASES, FAILED_JOB, MARKUP, MEMORY, cells, child, job, mapped, noted

BAD: tuple[Any, ...] = (
    None, True, -1, 0.5, 1e300, "", MARKUP, "javascript:window.hacked=1", "9" * 5000, [], [None], {}, {"__proto__": 1},
)  # fmt: skip
"""What stands where something else should."""

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
"""What is well, and small."""

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
"""Answers for Airflow. ``feed`` shows the page one answer after the other, and returns what has gone wrong."""


def places(value: Any, where: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Every place in a value, those that hold others too; of a list the first two."""
    if where:
        yield where
    within = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, each in within:
        yield from places(each, (*where, key))


def spoilt(good: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What is well, with one thing wrong in it; and that thing missing."""
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
