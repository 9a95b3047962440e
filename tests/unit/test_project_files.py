# SPDX-License-Identifier: Apache-2.0
"""The files of the project agree: workflows, versions, keywords and the source distribution."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from pages import PAGES, ROOT

from airflow_flowservice import __version__

WORKFLOWS = {file.name: file.read_text() for file in sorted((ROOT / ".github/workflows").glob("*.yml"))}
BY_TAG = ("github/codeql-action/init@v3", "github/codeql-action/analyze@v3")


def jobs(name: str) -> dict:
    return yaml.safe_load(WORKFLOWS[name])["jobs"]


def commands(name: str) -> str:
    return "\n".join(step.get("run", "") for job in jobs(name).values() for step in job["steps"])


def test_workflows_call_the_checks_of_the_project() -> None:
    """A check is described once: in `.ci/run` or in noxfile.py."""
    assert ".ci/run" in commands("ci.yml").splitlines()
    assert "nox --session tests" in commands("versions.yml")
    assert "python .ci/package_readme.py" in commands("release.yml").splitlines()


@pytest.mark.parametrize(
    ("line", "status"), [("* @acme/data", 0), ("*  @jane", 0), ("#     * @OWNER/TEAM", 1), ("*", 1), ("*.py @jane", 1)]
)
def test_release_needs_owners(line: str, status: int, tmp_path: Path) -> None:
    """The workflow refuses to publish if no line of CODEOWNERS has an owner of all files."""
    (check,) = [line for line in commands("release.yml").splitlines() if "CODEOWNERS" in line]
    (tmp_path / ".github").mkdir()
    (tmp_path / ".github/CODEOWNERS").write_text(f"{line}\n")
    assert status == subprocess.run(["bash", "-euc", check], cwd=tmp_path, check=False).returncode


def test_owners_are_real_or_missing() -> None:
    """CODEOWNERS has no placeholder, and CONTRIBUTING.md says to add owners as long as it has none."""
    lines = [line for line in (ROOT / ".github/CODEOWNERS").read_text().splitlines() if not line.startswith("#")]
    assert [] == [line for line in lines if "OWNER" in line]
    assert lines or ".github/CODEOWNERS" in (ROOT / "CONTRIBUTING.md").read_text()


@pytest.mark.parametrize("name", WORKFLOWS)
def test_actions_are_pinned_to_a_commit(name: str) -> None:
    """Each action is a commit with its version as a comment; two are tags, for the reason at their line."""
    used = re.findall(r"uses: (\S+)(.*)$", WORKFLOWS[name], flags=re.M)
    assert [] != used
    pinned = [action for action, note in used if re.fullmatch(r" # v\d+\.\d+\.\d+", note)]
    assert [action for action, _ in used if action not in BY_TAG] == pinned
    assert [] == [action for action in pinned if not re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", action)]


@pytest.mark.parametrize("name", WORKFLOWS)
def test_workflows_have_few_permissions_and_a_time_limit(name: str) -> None:
    """A workflow has no permissions, except those of its jobs; only the release can write to an index."""
    workflow = yaml.safe_load(WORKFLOWS[name])
    assert {} == workflow["permissions"]
    assert all(job["timeout-minutes"] for job in workflow["jobs"].values())
    writes = {
        (name, key) for job in workflow["jobs"].values() for key, it in job["permissions"].items() if it != "read"
    }
    assert writes <= {("release.yml", "id-token"), ("codeql.yml", "security-events")}
    assert "secrets." not in WORKFLOWS[name]


def test_python_versions_of_the_workflow_are_those_of_nox() -> None:
    (job,) = jobs("versions.yml").values()
    of_nox = re.findall(r'"(3\.\d+)"', (ROOT / "noxfile.py").read_text())
    assert set(of_nox) == set(job["strategy"]["matrix"]["python"])


NOX = {
    version: re.findall(r'"(3\.\d+)"', pythons)
    for version, pythons in re.findall(
        r'Airflow\(\s*"([\d.]+)", pythons=\(([^)]+)\)', (ROOT / "noxfile.py").read_text(), flags=re.S
    )
}


def test_supported_versions_are_those_of_nox() -> None:
    """The page has each version of Airflow that nox tests, with its versions of Python."""
    rows = re.findall(r"^\| 3\.\d \(([\d.]+)\) \| (3\.\d+) to (3\.\d+) \|", PAGES["docs/versions.md"], flags=re.M)
    assert {version: (pythons[0], pythons[-1]) for version, pythons in NOX.items()} == {
        version: tuple(edges) for version, *edges in rows
    }


def test_lines_for_an_installation_have_versions_that_exist() -> None:
    """The package's version is the present one, and Airflow and Python are among those that nox tests."""
    page = PAGES["docs/how-to/managed-services.md"]
    assert {__version__} == set(re.findall(r"airflow-flowservice==([\d.]+\d)", page))
    assert {__version__} == set(re.findall(r"airflow_flowservice-([\d.]+)-py3", page))
    assert set(re.findall(r"apache/airflow:([\d.]+)|apache-airflow==([\d.]+)", page)) <= {
        pair for version in NOX for pair in ((version, ""), ("", version))
    }
    ((airflow, python),) = re.findall(r"constraints-([\d.]+)/constraints-([\d.]+)\.txt", page)
    assert python in NOX[airflow]


def test_source_distribution_has_every_folder_of_the_checkout() -> None:
    """pyproject.toml lists each top-level file and folder in git."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    section = (ROOT / "pyproject.toml").read_text().partition("[tool.hatch.build.targets.sdist]")[2].partition("\n[")[0]
    included = set(re.findall(r'"/([^"]+)"', section))
    assert {name.partition("/")[0] for name in listed.stdout.splitlines()} - {"pyproject.toml"} == included
