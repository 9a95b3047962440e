# SPDX-License-Identifier: Apache-2.0
"""Tests of the contents of the wheel and the sdist in the folder `RELEASE`; `.ci/run` builds them.

The expected files are those that git tracks. Therefore, the tests find files that are not committed, and caches.
"""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import tarfile
import zipfile
from email import message_from_string
from pathlib import Path

ROOT = Path(__file__).parents[1]
BUILT = Path(os.environ["RELEASE"])


def version() -> str:
    """Return the version of the package."""
    return re.search(r'^__version__ = "(.+)"$', (ROOT / "airflow_flowservice/__init__.py").read_text(), re.M)[1]


def committed(*folders: str) -> set[str]:
    """Return the files that git tracks in these folders."""
    listed = subprocess.run(["git", "ls-files", *folders], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(listed.stdout.split("\n")) - {""}


def wheel() -> zipfile.ZipFile:
    """Open the only wheel."""
    (file,) = BUILT.glob("*.whl")
    return zipfile.ZipFile(file)


def test_wheel_has_only_the_package_and_the_examples():
    """The wheel has no tests and no caches; the only other files are its metadata."""
    about = f"airflow_flowservice-{version()}.dist-info"
    own = {
        f"{about}/{name}"
        for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE", "licenses/NOTICE")
    }
    examples = {f"airflow_flowservice/{name}" for name in committed("dags_examples")}
    package = committed("airflow_flowservice")
    assert {"airflow_flowservice/py.typed", "airflow_flowservice/plugins/static/page.html"} <= package
    assert package | examples | own == set(wheel().namelist())


def test_sdist_has_all_files_in_git():
    """The tests are included, so that they can be run from the sdist."""
    (file,) = BUILT.glob("*.tar.gz")
    folder = f"airflow_flowservice-{version()}/"
    with tarfile.open(file) as opened:
        names = {member.name for member in opened.getmembers() if member.isfile()}
    assert {folder + name for name in committed()} | {f"{folder}PKG-INFO"} == names


def test_metadata_is_complete():
    """The metadata has version, description and extras, and no reference to local files."""
    about = message_from_string(wheel().read(f"airflow_flowservice-{version()}.dist-info/METADATA").decode())
    assert (version(), ">=3.10", "text/markdown") == (
        about["Version"],
        about["Requires-Python"],
        about["Description-Content-Type"],
    )
    assert {"emulator", "demo", "openlineage", "test", "dev"} == set(about.get_all("Provides-Extra"))
    urls = dict(url.split(", ", 1) for url in about.get_all("Project-URL"))
    readme = runpy.run_path(str(ROOT / ".ci" / "package_readme.py"))
    text = readme["absolute_links"]((ROOT / "README.md").read_text(), urls.get("Source"), version())
    assert text.strip() == about.get_payload().strip()
    assert [] == [required for required in about.get_all("Requires-Dist") if "file:" in required or "@" in required]


def test_entry_points_of_provider_and_plugin():
    """Airflow finds the provider and the plugin by their entry points."""
    points = wheel().read(f"airflow_flowservice-{version()}.dist-info/entry_points.txt").decode()
    assert (
        "[apache_airflow_provider]\nprovider_info = airflow_flowservice.get_provider_info:get_provider_info" in points
    )
    assert "[airflow.plugins]\nflowservice = airflow_flowservice.plugins.plugin:FlowServicePlugin" in points
