"""The pages agree with the code."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import sys
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from airflow_jobflow import exceptions, metrics
from airflow_jobflow.jobs.causes import BY_CAUSE, Diagnosis
from airflow_jobflow.provider_info import get_provider_info

DIAGNOSES: Final = list(BY_CAUSE.values())
ERRORS: Final = [
    each
    for _, each in inspect.getmembers(exceptions, inspect.isclass)
    if issubclass(each, exceptions.JobflowError) and each is not exceptions.JobflowError
]


def section(page: str, title: str) -> str:
    """The section of a page under a heading of any depth."""
    found = re.search(rf"^(#+) {re.escape(title)}\n(.*?)(?=^#|\Z)", page, re.DOTALL | re.MULTILINE)
    assert found, f"there is no heading {title!r}"
    return found[2]


@pytest.fixture(scope="module")
def failures(docs: Path) -> str:
    """The page of failures."""
    return (docs / "failures.md").read_text()


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_every_exception_has_its_heading_and_anchor(failures: str, error: type[Exception]) -> None:
    """Users search for its name. A star marks an exception that is not retried."""
    from airflow.sdk.exceptions import AirflowFailException

    star = r" \*" if issubclass(error, AirflowFailException) else ""
    assert re.search(rf"^\(error-{error.__name__}\)=\n### {error.__name__}{star}$", failures, re.MULTILINE)


@pytest.mark.parametrize("known", DIAGNOSES, ids=lambda known: known.cause)
def test_every_diagnosis_has_its_heading_and_anchor(failures: str, known: Diagnosis) -> None:
    """Users search for its text."""
    text = section(failures, known.summary)
    assert f"(diagnosis-{known.cause})=\n### {known.summary}\n" in failures
    assert f"`{known.cause}`, {known.blame.value}\n" in text
    assert known.advice in " ".join(text.split())


def test_the_diagnoses_are_those_of_the_code(docs: Path, failures: str) -> None:
    """``python docs/diagnoses.py`` writes them."""
    spec = importlib.util.spec_from_file_location("diagnoses", docs / "diagnoses.py")
    assert spec
    assert spec.loader
    written = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(written)
    assert failures == written.page(failures)


def _tables(docs: Path) -> Any:
    spec = importlib.util.spec_from_file_location("docs_parameters", docs / "parameters.py")
    assert spec
    assert spec.loader
    tables = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = tables  # its dataclass needs that
    spec.loader.exec_module(tables)
    return tables


def test_every_parameter_is_in_a_table_of_a_page(docs: Path) -> None:
    """The tables come from the code; a parameter that no docstring documents would be missing."""
    tables = _tables(docs)
    assert tables.undocumented() == []
    pages = [path.read_text() for path in (docs / "operators").glob("*.md")]
    placeholders = {found["table"] for page in pages for found in tables.PLACEHOLDER.finditer(page)}
    assert placeholders >= {
        "BatchJobOperator",
        "EcsTaskOperator",
        "FargateTaskOperator",
        "GlueJobRunOperator",
        "all",
        "operators",
    }
    for name in placeholders:
        table = tables.TABLES[name]
        written = tables.as_markdown(table)
        assert all(f"`{parameter}`" in written for parameter in table.rows)
        assert all(f"`{member}`" in written for member in table.rows.members.values())


def test_a_page_has_the_keys_of_an_item(docs: Path) -> None:
    """They differ between Batch and ECS."""
    page = _tables(docs).filled("Keys: <!-- item fields: FargateTaskOperator -->.")
    assert page.startswith("Keys: `command`, `environment`, `container_name`, ")
    assert "cluster" not in page


THEIRS: Final = {
    "BatchOperator": "operators.batch",
    "EcsRunTaskOperator": "operators.ecs",
    "GlueJobOperator": "operators.glue",
    "GlueCrawlerOperator": "operators.glue_crawler",
    "GlueCrawlerRunOperator": "operators.glue_crawler",
    "BatchSensor": "sensors.batch",
    "EcsTaskStateSensor": "sensors.ecs",
    "GlueJobSensor": "sensors.glue",
    "GlueCrawlerSensor": "sensors.glue_crawler",
}


@pytest.mark.parametrize("name", THEIRS)
def test_every_parameter_of_the_amazon_provider_has_its_counterpart(docs: Path, name: str) -> None:
    """Users who migrate look for each parameter."""
    module = importlib.import_module(f"airflow.providers.amazon.aws.{THEIRS[name]}")
    init: Any = inspect.unwrap(getattr(module, name).__init__)
    code = init.__code__
    parameters = set(code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount])
    page = (docs / "amazon-provider.md").read_text()
    [heading] = [title for title in re.findall(r"^## (.+)$", page, re.MULTILINE) if name in title.split(", ")]
    documented = {
        word
        for row in re.findall(r"^\| (.*?) \|", section(page, heading), re.MULTILINE)
        for word in re.findall(r"`(\w+)[`=]", row)
    }
    assert parameters - documented == set()


class Template(yaml.SafeLoader):
    """Reads a CloudFormation template and ignores its functions."""


Template.add_multi_constructor("!", lambda *_: None)


def test_the_permissions_are_those_of_the_template(root: Path, docs: Path) -> None:
    """A user who copies a row without one is denied at run time."""
    template = yaml.load((root / "infra" / "jobflow.yaml").read_text(), Template)
    allowed = {}
    for name, resource in template["Resources"].items():
        if resource["Type"] == "AWS::IAM::ManagedPolicy":
            statements = resource["Properties"]["PolicyDocument"]["Statement"]
            actions = [each["Action"] for each in statements]
            allowed[name] = {one for each in actions for one in ([each] if isinstance(each, str) else each)}
    rows = re.findall(r"^\| .* \| `(\w+Policy)` \| (.*) \|$", (docs / "permissions.md").read_text(), re.MULTILINE)
    assert {name: set(re.findall(r"`([\w:]+)`", actions)) for name, actions in rows} == allowed


def test_every_page_is_in_the_table_of_contents(docs: Path) -> None:
    """Nobody finds a page that is not listed."""
    listed = set(re.findall(r"^([\w/-]+)$", (docs / "index.md").read_text(), re.MULTILINE))
    pages = {str(page.relative_to(docs).with_suffix("")) for page in docs.rglob("*.md")}
    assert pages - listed == {"index"}


def test_every_setting_is_documented_with_its_default(docs: Path) -> None:
    """In the table; the sections below it are written from ``provider_info``."""
    options = get_provider_info()["config"]["jobflow"]["options"]
    page = (docs / "configuration.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (.*?) ?\| .+ \|$", page.split("## ")[0], re.MULTILINE)
    plain = {name: re.sub(r"\.0$", "", option["default"]) for name, option in options.items()}
    assert dict(rows) == plain
    assert page.count("<!-- settings -->") == 1
    assert all(option["description"] and option["version_added"] for option in options.values())


def test_every_metric_is_documented(docs: Path) -> None:
    """Users search for their names."""
    written = set(re.findall(r"`jobflow\.<service>\.(\w+)`", (docs / "scale.md").read_text()))
    assert written == set(re.findall(r'\.(\w+)"', "\n".join(re.findall(r'f"jobflow\..*', inspect.getsource(metrics)))))


def test_every_picture_exists_and_is_shown(docs: Path) -> None:
    """The build silently leaves out a missing one; each sample DAG has one."""
    pages = "\n".join(page.read_text() for page in docs.rglob("*.md"))
    shown = set(re.findall(r"<!-- image: (\S+) ", pages))
    assert shown == {f"images/{image.name}" for image in (docs / "images").iterdir()}
    dags = re.findall(
        r"^def (\w+)\(\) -> None:$", "\n".join(dag.read_text() for dag in docs.parent.glob("dags/*.py")), re.MULTILINE
    )
    assert {f"images/dag-{dag}.png" for dag in dags} <= shown


def test_the_modules_of_the_architecture_exist(root: Path, docs: Path) -> None:
    """A reader who looks for one that was renamed is lost. In a row, names without a directory have the first one's."""
    rows = re.findall(r"^\| (`[\w/]+(?:\.py|/)`.*?) \|", (docs / "architecture.md").read_text(), re.MULTILINE)
    assert len(rows) > 15
    missing = []
    for row in rows:
        names = re.findall(r"`([\w/]+(?:\.py|/))`", row)
        directory = Path(names[0]).parent if "/" in names[0] else Path()
        paths = [Path(name) if "/" in name else directory / name for name in names]
        missing += [str(path) for path in paths if not (root / "airflow_jobflow" / path).exists()]
    assert missing == []


@pytest.mark.parametrize("page", ["README.md", "infra/README.md"])
def test_every_link_in_the_checkout_leads_somewhere(root: Path, page: str) -> None:
    """Sphinx checks only links within the documentation."""
    links = re.findall(r"\]\(((?!https?:|#)[^)#]+)", (root / page).read_text())
    assert [link for link in links if not (root / page).parent.joinpath(link).exists()] == []


@pytest.mark.parametrize("language", ["sh", "python"])
def test_the_lines_that_find_a_childs_index_are_in_one_place(docs: Path, language: str) -> None:
    """``test_batch_redrive.py`` runs them from there; a copy on another page would not be run."""
    found = {
        page.name: re.findall(rf"```{language}\n# Which child", page.read_text())
        for page in (docs.parent / "README.md", *docs.rglob("*.md"))
    }
    assert {name: len(blocks) for name, blocks in found.items() if blocks} == {"arrays-and-maps.md": 1}
