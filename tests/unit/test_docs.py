# SPDX-License-Identifier: Apache-2.0
"""Verify that the documentation's code runs, and that its tables match the code."""

from __future__ import annotations

import dataclasses
import inspect
import posixpath
import re
from typing import get_args, get_type_hints
from urllib.parse import urlsplit

import errors_page
import pytest
from pages import PAGES, ROOT, blocks

from airflow_flowservice.api.models import DeltaColumn
from airflow_flowservice.exceptions import tree
from airflow_flowservice.freshness import FlowFreshnessSensor
from airflow_flowservice.get_provider_info import CONNECTION_FIELDS
from airflow_flowservice.operators import OnDemandFlowRunOperator, RetriggerFlowRunOperator
from airflow_flowservice.sensors import FlowRunSensor

CHANGELOG = (ROOT / "CHANGELOG.md").read_text()


def parameters(operator: type) -> set[str]:
    """Return an operator's parameters, without those of Airflow."""
    own = [cls for cls in operator.__mro__ if cls.__module__.startswith("airflow_flowservice")]
    return {
        name
        for cls in own
        for name, parameter in inspect.signature(cls.__init__).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }


# `e2e/test_testing_page.py` runs the first page, whose blocks are files, and `test_how_to_pages.py` the others.
_TESTED_ELSEWHERE = ("docs/testing-your-dags.md", *(name for name in PAGES if name.startswith("docs/how-to/")))


@pytest.mark.parametrize("page", [name for name in PAGES if name not in _TESTED_ELSEWHERE and blocks(name, "python")])
def test_python_of_pages_runs(page):
    """The Python blocks of each page run one after the other."""
    namespace: dict[str, object] = {"__name__": "page"}
    for block in blocks(page, "python"):
        exec(compile(block, page, "exec"), namespace)
    assert "DAG" in namespace


def test_every_metric_is_documented():
    """The page lists each counter, each `runs.*` counter of an outcome, and the gauge `waiters`."""
    from airflow_flowservice.runs.intent import Outcome

    ways = get_args(get_type_hints(Outcome)["how"])
    source = "".join(file.read_text() for file in (ROOT / "airflow_flowservice").rglob("*.py"))
    names = {f"runs.{way}" for way in ways} | set(re.findall(r'count\("([a-z.]+)"\)', source)) | {"waiters"}
    assert {"runs.created", "runs.uncertain", "polls"} <= names
    assert set() == {name for name in names if f"`flowservice.{name}`" not in PAGES["docs/assets-and-lineage.md"]}


def test_every_field_of_the_lineage_facet_is_documented():
    import attrs

    from airflow_flowservice.openlineage import FACET, FlowRunFacet

    names = {field.name for field in attrs.fields(FlowRunFacet) if not field.name.startswith("_")}
    assert set() == {name for name in names | {FACET} if f"`{name}`" not in PAGES["docs/assets-and-lineage.md"]}


@pytest.mark.parametrize("operator", [OnDemandFlowRunOperator, RetriggerFlowRunOperator, FlowRunSensor])
def test_every_parameter_is_documented(operator):
    assert set() == {name for name in parameters(operator) if f"`{name}`" not in PAGES["docs/operators.md"]}


def test_every_documented_parameter_exists():
    """The tables have no parameter that was removed from the code."""
    rows = re.findall(r"^\| (`.+?) \|", PAGES["docs/operators.md"], flags=re.M)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    known = parameters(OnDemandFlowRunOperator) | {"execution_timeout", "timeout"}
    assert {"flow_id", "window_end", "on_uncertain"} <= named
    assert set() == named - known


def test_every_key_of_the_summary_is_documented():
    """The page lists each key of the XCom `flow_run`, which is a public interface."""
    from airflow_flowservice.api.models import FlowRun
    from airflow_flowservice.runs.summary import FlowRunSummary

    keys = FlowRunSummary.of(FlowRun.parse({"id": "r", "flowId": "f"}), url="u").to_json()
    assert {"id", "window_start", "failed_records"} <= set(keys)
    assert [] == [key for key in keys if f"`{key}`" not in PAGES["docs/operators.md"]]


def test_every_connection_field_is_documented():
    assert set() == {name for name in CONNECTION_FIELDS if f"extra `{name}`" not in PAGES["docs/connection.md"]}


def test_errors_page_is_up_to_date():
    """The page is the output of `python tests/support/errors_page.py`, and its tree has each class."""
    assert errors_page.page() == PAGES["docs/errors.md"]
    assert [] == [
        cls.__name__ for cls in tree() if not re.search(rf"^ *{cls.__name__}$", PAGES["docs/errors.md"], re.M)
    ]


def test_index_links_to_every_page():
    """`docs/README.md` has a link to each page, and README.md has a link to it."""
    index = PAGES["docs/README.md"]
    linked = {posixpath.normpath(f"docs/{target}") for target in re.findall(r"\]\(([^)#]+)", index)}
    assert set() == set(PAGES) - linked - {"README.md", "docs/README.md"}
    assert "](docs/README.md)" in PAGES["README.md"]


def test_readme_fits_on_two_screens():
    """README has about 120 lines, one screenshot, one DAG, and five links to the documentation."""
    readme = PAGES["README.md"]
    assert 130 > len(readme.splitlines())
    assert 1 == len(blocks("README.md", "python")) == readme.count("](docs/overview.png)")
    assert 5 == len(re.findall(r"^\d\. \[", readme, flags=re.M))


def test_changelog_names_every_public_class():
    """The changelog has the full name of each operator and sensor."""
    names = [OnDemandFlowRunOperator, RetriggerFlowRunOperator, FlowRunSensor, FlowFreshnessSensor]
    assert set() == {f"{cls.__module__}.{cls.__name__}" for cls in names} - set(re.findall(r"`([\w.]+)`", CHANGELOG))


@pytest.mark.parametrize("page", PAGES)
def test_links_have_a_target(page):
    """Links to pages and to headings exist."""
    folder = (ROOT / page).parent
    links = [
        (target.partition("#")[0], target.partition("#")[2])
        for target in re.findall(r"\]\((?!https?:)([^)]*)\)", PAGES[page])
    ]
    assert [] == [file for file, _ in links if not (folder / file).exists()]
    named = [(folder / file if file else ROOT / page, heading) for file, heading in links if heading]
    assert [] == [(file, heading) for file, heading in named if heading not in headings(file.read_text())]


def headings(text: str) -> set[str]:
    """Return the anchors of a page's headings, as the repository's web view creates them."""
    return {
        re.sub(r"[^a-z0-9 -]", "", line.lower()).replace(" ", "-") for line in re.findall(r"^#+ (.*)", text, flags=re.M)
    }


def test_keys_of_the_delta_column_are_documented():
    """The table of `docs/before-you-start.md` has each key that `delta_column` accepts, and no other."""
    section = PAGES["docs/before-you-start.md"].partition("| key | meaning |\n")[2].partition("\n\n")[0]
    keys = re.findall(r"^\| `(\w+)` \|", section, flags=re.M)
    column = DeltaColumn.parse(dict.fromkeys(keys, "text"))
    assert keys == list(column.to_json())
    assert len(keys) == len(dataclasses.fields(DeltaColumn))


@pytest.mark.parametrize("page", [name for name in PAGES if re.search(r"\]\[[\w-]+\]", PAGES[name])])
def test_named_links_are_defined_and_used(page):
    """A page defines each named link that it uses, as an address of Adobe or of Airflow, and uses each."""
    text = re.sub(r"^```.*?^```$", "", PAGES[page], flags=re.M | re.S)
    defined = dict(re.findall(r"^\[([\w-]+)\]: (https://\S+)$", text, flags=re.M))
    assert set(re.findall(r"\]\[([\w-]+)\]", text)) == set(defined)
    hosts = {urlsplit(address).hostname for address in defined.values()}
    assert hosts <= {"experienceleague.adobe.com", "developer.adobe.com", "airflow.apache.org"}
