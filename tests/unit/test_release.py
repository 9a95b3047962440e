"""Tests of the version and the changelog. `.ci/test_release.py` tests the contents of wheel and sdist."""

from __future__ import annotations

import re

from pages import ROOT

from airflow_flowservice import __version__


def test_changelog_begins_with_this_version():
    """The heading of a release has its date."""
    heading = re.search(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), flags=re.M)
    assert re.fullmatch(rf"{re.escape(__version__)} \(\d{{4}}-\d\d-\d\d\)", heading[1])


def test_version_is_in_one_file_only():
    """The build reads the version from `__init__.py`."""
    assert 'dynamic = ["version"]' in (ROOT / "pyproject.toml").read_text()
    files = [ROOT / "pyproject.toml", ROOT / "noxfile.py", *ROOT.glob("airflow_flowservice/**/*.py")]
    assert ["__init__.py"] == [file.name for file in files if f'"{__version__}"' in file.read_text()]
