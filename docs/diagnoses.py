"""Writes the section "Diagnoses" of failures.md, from the table of causes and the corpus of AWS's messages.

``python docs/diagnoses.py`` writes it; a test compares the page with it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from airflow_jobflow.jobs.causes import BY_CAUSE, Diagnosis
from airflow_jobflow.retry_policy import BY_BLAME

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "failures.md"
CORPUS = ROOT / "tests" / "unit" / "jobs" / "aws_reasons.yaml"

BEGIN = "<!-- written by docs/diagnoses.py: begin -->\n"
END = "<!-- written by docs/diagnoses.py: end -->\n"

SERVICES = {"batch": "Batch", "ecs": "ECS", "glue_crawl": "Glue crawls", "glue_run": "Glue job runs"}
"""The services as the page names them."""


def diagnoses() -> str:
    """Return the section as Markdown."""
    lines = {cause: entry["lines"] for cause, entry in yaml.safe_load(CORPUS.read_text())["causes"].items()}
    table = [
        f"| {{ref}}`{cause} <diagnosis-{cause}>` | {each.blame.value} | {BY_BLAME[each.blame].value} |"
        for cause, each in BY_CAUSE.items()
    ]
    head = ["| `cause` | `blame` | `JobRetryPolicy` |", "|---|---|---|"]
    return "\n".join([*head, *table, "", *(_section(each, lines.get(each.cause, [])) for each in BY_CAUSE.values())])


def _section(diagnosis: Diagnosis, lines: list[dict[str, Any]]) -> str:
    parts = [
        f"(diagnosis-{diagnosis.cause})=\n### {diagnosis.summary}",
        f"`{diagnosis.cause}`, {diagnosis.blame.value}\n",
        diagnosis.advice,
    ]
    if diagnosis.advice_for:
        parts.append("\n".join(f"- {SERVICES[name]}: {advice}" for name, advice in diagnosis.advice_for.items()))
    if said := list(dict.fromkeys(filter(None, map(_said, lines)))):
        parts.append("AWS says, for example:\n\n```text\n" + "\n".join(said) + "\n```")
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def _said(line: dict[str, Any]) -> str:
    """Return AWS's most specific message, with the exit code if that decides the cause."""
    words = line.get("container") or line.get("reason") or line.get("code", "")
    decides = line.get("exit_code") is not None and words == "Essential container in task exited"
    return f"{words} (exit code {line['exit_code']})" if decides else words


def page(text: str) -> str:
    """Return the page with an up-to-date section.

    :param text: the current page.
    """
    before, rest = text.split(BEGIN)
    return before + BEGIN + "\n" + diagnoses() + "\n" + END + rest.split(END)[1]


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
