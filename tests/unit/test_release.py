"""The version stands in one place, and the changelog tells of it. What is in wheel and sdist: `.ci/test_release.py`."""

from __future__ import annotations

import re

from pages import ROOT

from airflow_flowservice import __version__


def test_the_changelog_begins_with_this_version():
    """A release without an entry tells nobody anything; its heading has the day."""
    heading = re.search(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), flags=re.M)
    assert re.fullmatch(rf"{re.escape(__version__)} \(\d{{4}}-\d\d-\d\d\)", heading[1])


def test_nothing_else_has_the_version():
    """It is read from there when the package is built."""
    assert 'dynamic = ["version"]' in (ROOT / "pyproject.toml").read_text()
    files = [ROOT / "pyproject.toml", ROOT / "noxfile.py", *ROOT.glob("airflow_flowservice/**/*.py")]
    assert ["__init__.py"] == [file.name for file in files if f'"{__version__}"' in file.read_text()]
