# SPDX-License-Identifier: Apache-2.0
"""Tests of the version and the changelog. `.ci/test_release.py` tests the contents of wheel and sdist."""

from __future__ import annotations

import re
import runpy
from importlib.metadata import PackageNotFoundError, requires

import pytest
from pages import PAGES, ROOT

from airflow_flowservice import __version__


def test_changelog_begins_with_this_version():
    """The heading of a release has its date."""
    heading = re.search(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), flags=re.M)
    assert re.fullmatch(rf"{re.escape(__version__)} \(\d{{4}}-\d\d-\d\d\)", heading[1])


def test_version_is_in_one_file_only():
    """The build reads the version from `__init__.py`. `version_added` of an option stays when the version changes."""
    assert 'dynamic = ["version", "readme"]' in (ROOT / "pyproject.toml").read_text()
    files = [ROOT / "pyproject.toml", ROOT / "noxfile.py", *ROOT.glob("airflow_flowservice/**/*.py")]
    lines = [(file.name, line) for file in files for line in file.read_text().splitlines()]
    assert ["__init__.py"] == [
        name for name, line in lines if f'"{__version__}"' in line and '"version_added":' not in line
    ]


PACKAGE_README = runpy.run_path(str(ROOT / ".ci" / "package_readme.py"))


def test_description_of_the_package_has_only_absolute_links():
    """With the repository's address, an index shows no link of README that works only in the repository."""
    readme, source = PAGES["README.md"], "https://example.com/owner/name"
    assert {"docs/overview.png", "docs/getting-started.md", "CONTRIBUTING.md"} <= set(
        PACKAGE_README["relative_links"](readme)
    )
    shown = PACKAGE_README["absolute_links"](readme, source, "1.2.3")
    assert [] == PACKAGE_README["relative_links"](shown)
    assert f"]({source}/raw/v1.2.3/docs/overview.png)" in shown
    assert f"]({source}/blob/v1.2.3/docs/getting-started.md)" in shown


def test_description_is_unchanged_without_the_address_of_the_repository():
    """No address is invented."""
    assert PAGES["README.md"] == PACKAGE_README["absolute_links"](PAGES["README.md"], None, "1.2.3")


@pytest.mark.parametrize(
    "text",
    ["[a](https://example.com/a)", "[a](#heading)", "```python\n[a](b)\n```"],
    ids=["absolute", "anchor", "code"],
)
def test_other_links_and_code_are_unchanged(text):
    assert text == PACKAGE_README["absolute_links"](text, "https://example.com/owner/name", "1.2.3")


def required(distribution):
    """Return the names of a distribution's requirements, without those of its extras."""
    try:
        found = requires(distribution) or []
    except PackageNotFoundError:  # for another platform
        return set()
    return {re.split(r"[^\w.-]", each)[0].lower().replace("_", "-") for each in found if "extra ==" not in each}


def test_package_requires_only_what_airflow_installs():
    """Airflow's constraints pin each requirement, as the page of managed services states."""
    installed, rest = set(), ["apache-airflow"]
    while rest:
        if (name := rest.pop()) not in installed:
            installed.add(name)
            rest += required(name)
    own = required("airflow-flowservice")
    assert {"requests", "croniter"} <= own
    assert set() == own - installed
