"""Sphinx configuration: ``make docs`` builds the documentation, with warnings as errors.

Invariants: nothing is downloaded; the settings come from ``provider_info`` and the API reference from docstrings, so
that neither can differ from the code.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from docutils import nodes
from sphinx.util import logging

from airflow_jobflow import __version__, exceptions
from airflow_jobflow.jobs.causes import BY_CAUSE
from airflow_jobflow.provider_info import get_provider_info

sys.path.append(str(Path(__file__).parent))
import parameters

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "airflow-jobflow"
author = "the airflow-jobflow developers"
copyright = author  # noqa: A001 -- Sphinx's name for it
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = f"airflow-jobflow {release}"
html_static_path = ["_static"]
html_css_files = ["docs.css"]
html_copy_source = False
html_show_sphinx = False

nitpicky = True
# Names of this package must resolve. Others are Python's, Airflow's and boto3's, or short names in annotations.
nitpick_ignore_regex = [(r"py:.*", r"(?!airflow_jobflow\.).*")]

autodoc_typehints = "none"  # docstrings state types where they matter, and units
autodoc_member_order = "bysource"
autodoc_class_signature = "separated"

FIELD = re.compile(r"^(?P<indent>\s*):(?P<kind>param|raises) (?P<names>[\w,. ]+):", re.MULTILINE)
BROKEN = re.compile(r"^(\s*:(?:param|raises) [\w, ]+,)\n\s+([\w, ]+:)", re.MULTILINE)
GLUE = ",\N{ZERO WIDTH SPACE}"
"""Joins several names of a field until the page is written."""


def several_names(*arguments: Any) -> None:
    """Read ``:param a, b: …`` as one field of two names; Sphinx would take the first for the type of the second."""
    lines: list[str] = arguments[-1]
    text = BROKEN.sub(r"\1 \2", "\n".join(lines))
    lines[:] = FIELD.sub(lambda found: found[0].replace(", ", GLUE), text).splitlines()


def settings() -> str:
    """Write the settings of ``[jobflow]`` as Markdown, from ``provider_info``."""
    parts = []
    for name, option in get_provider_info()["config"]["jobflow"]["options"].items():
        default = option["default"] or "(empty)"
        variable = f"AIRFLOW__JOBFLOW__{name.upper()}"
        parts.append(
            f"(setting-{name})=\n## `{name}`\n\n{option['description']}\n\n"
            f"Type {option['type']}, default `{default}`, since {option['version_added']}; "
            f"as an environment variable `{variable}`.\n"
        )
    return "\n".join(parts)


IMAGE = re.compile(r"<!-- image: (?P<file>\S+) (?P<words>.+?) -->")


def image(found: re.Match[str]) -> str:
    """Show an image if the file exists: images are taken from a running Airflow, not by this build."""
    there = (Path(__file__).parent / found["file"]).exists()
    return f"![{found['words']}]({found['file']})\n\n*{found['words']}.*" if there else ""


def filled(app: Sphinx, name: str, source: list[str]) -> None:  # noqa: ARG001
    """Replace the placeholders for settings, images and tables of parameters."""
    source[0] = IMAGE.sub(image, parameters.filled(source[0].replace("<!-- settings -->", settings())))


def spaced(app: Sphinx, tree: nodes.document) -> None:  # noqa: ARG001
    """Write a field of several names as a list."""
    for text in list(tree.findall(nodes.Text)):
        if GLUE in text:
            text.parent.replace(text, nodes.Text(text.replace(GLUE, ", ")))


def led_to(app: Sphinx, tree: nodes.document) -> None:
    """Check that each failure has the heading that failed tasks link to, see ``airflow_jobflow.ui.failure_report``."""
    if app.env.docname != "failures":
        return
    classes = [each for each in vars(exceptions).values() if isinstance(each, type)]
    ours = [each for each in classes if each.__module__ == exceptions.__name__]
    errors = [each.__name__ for each in ours if each is not exceptions.JobflowError]  # the base class is never raised
    for heading in (*(f"error-{name}" for name in errors), *(f"diagnosis-{cause}" for cause in BY_CAUSE)):
        if heading.lower().replace("_", "-") not in tree.ids:
            logging.getLogger(__name__).warning("The page on failures has no anchor %s", heading)


def without_new(app: Sphinx, what: str, name: str, *rest: object) -> bool | None:  # noqa: ARG001
    """Leave out ``__new__``, which Airflow's base classes define and nobody calls."""
    return True if name == "__new__" else None


def setup(app: Sphinx) -> None:
    """Connect the functions above to Sphinx."""
    app.connect("autodoc-process-docstring", several_names)
    app.connect("autodoc-skip-member", without_new)
    app.connect("source-read", filled)
    app.connect("doctree-read", spaced)
    app.connect("doctree-read", led_to)
