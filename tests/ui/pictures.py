"""Takes the pictures of the tab for the documentation: ``python -m tests.ui.pictures``."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.ui.cases import CASES
from tests.ui.chromium import Chromium
from tests.ui.server import prepared, served
from tests.ui.tab import FRAME, in_airflow, shown_in_airflow, signed_in

IMAGES = Path(__file__).parents[2] / "docs" / "images"
DARK = "localStorage.setItem('theme', 'dark')"
HELP = "https://docs.example/failures.html#diagnosis-out-of-memory"
FAILED = CASES["failed"][1]["jobflow_jobs"] | {"help": HELP}
TOLD = {
    "uploads": CASES["sensor"],
    "catalogue": CASES["crawl"],
    "pages": CASES["map"],
    "resize": CASES["array_failed"],
    "colours": ("failed", {"jobflow_jobs": FAILED}),
    "covers": CASES["live"],
    "proofs": CASES["map_live"],
    "report": (None, {}),
}
"""The results of each task."""

PICTURES = {
    "jobs-tab-job": ("covers", 760, ""),
    "jobs-tab-array": ("resize", 1180, ""),
    "jobs-tab-map": ("proofs", 1080, ""),
    "jobs-tab-failed": ("colours", 900, ""),
    "jobs-tab-dark": ("resize", 1180, DARK),
    "jobs-tab-run": ("", 830, ""),
}
"""By file name: the task, the height of the window, and a script that runs before those of the page."""


def main() -> None:
    """Take all pictures."""
    with tempfile.TemporaryDirectory(prefix="jobflow-pictures-") as directory, Chromium() as chromium:
        home = Path(directory) / "home"
        told = {task: [left] for task, left in TOLD.items()}
        with served(home, prepared(home, {"picture_book": told})) as airflow:
            for name, (task, height, before) in PICTURES.items():
                with signed_in(chromium, airflow, height=height) as page:
                    if before:
                        page.before_scripts(before)
                    shown_in_airflow(page, in_airflow(airflow, task, dag="picture_book"))
                    if task == "resize":  # the details of one are shown
                        page.run(f"{FRAME}.querySelectorAll('button.index')[2].click()")
                        page.run(f"{FRAME}.documentElement.scrollTop = 175")
                    page.until("document.fonts.status === 'loaded'")
                    page.picture(IMAGES / f"{name}.png")


if __name__ == "__main__":
    main()
