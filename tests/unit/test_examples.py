# SPDX-License-Identifier: Apache-2.0
"""Tests of the example DAGs: they import without errors, and Airflow can serialize them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from airflow_versions import DagSerialization

from airflow_flowservice._airflow import versions

EXAMPLES = Path(__file__).parents[2] / "dags_examples"
# Files that an earlier Airflow cannot import.
SINCE = {"flowservice_deadline.py": (3, 1)}
TASKS = {
    "flowservice_daily": ["ingest"],
    "flowservice_files_hourly": ["ingest", "report"],
    "flowservice_from_yaml": ["clicks", "orders"],
    "flowservice_late_data": ["ingest"],
    "flowservice_mapped": ["ingest"],
    "flowservice_sandboxes": ["dev.clicks", "prod.clicks"],
    "flowservice_sensor": ["create", "wait"],
    "flowservice_watch": ["watch"],
    "flowservice_watcher": ["ingest"],
}
if versions.version() >= (3, 1):
    TASKS["flowservice_deadline"] = ["ingest"]


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    """Return the DAGs that Airflow finds in the folder."""
    folder = tmp_path_factory.mktemp("examples")
    for file in [*EXAMPLES.glob("*.py"), *EXAMPLES.glob("*.yaml")]:
        if versions.version() >= SINCE.get(file.name, (3, 0)):
            shutil.copy(file, folder)
    return versions.dag_bag(str(folder))


def test_examples_import_without_errors(bag):
    """The folder has exactly these DAGs and tasks."""
    assert {} == bag.import_errors
    assert TASKS == {dag_id: sorted(dag.task_ids) for dag_id, dag in bag.dags.items()}


def test_page_lists_each_example():
    """`docs/examples.md` has a row for each file, and no other rows."""
    page = (EXAMPLES.parent / "docs" / "examples.md").read_text()
    listed = re.findall(r"^\| `(\S+\.py)` \|", page, re.MULTILINE)
    assert sorted(file.name for file in EXAMPLES.glob("*.py")) == sorted(listed)
    assert (10, True) == (len(listed), "has ten DAGs" in page)


@pytest.mark.parametrize("dag_id", TASKS)
def test_examples_are_unchanged_by_serialization(bag, dag_id):
    """Tasks, schedules and buttons survive the way from the DAG processor to the scheduler, as JSON."""
    text = json.dumps(DagSerialization.to_dict(bag.dags[dag_id]))
    scheduler_dag = DagSerialization.from_dict(json.loads(text))
    assert TASKS[dag_id] == sorted(scheduler_dag.task_ids)
    assert text == json.dumps(DagSerialization.to_dict(bag.dags[dag_id]))
    ours = [task for task in scheduler_dag.tasks if task.task_id != "report"]
    buttons = ("Open dataflow in Experience Platform", "Open in Experience Platform")
    # A sensor of a dataflow has no flow run.
    expected = buttons[:1] if dag_id == "flowservice_watch" else buttons
    assert {expected} == {tuple(sorted(task.extra_links)) for task in ours}


def test_dags_of_the_integration_tests_import_without_errors():
    """These DAGs are run by `dag.test()`."""
    bag = versions.dag_bag(str(Path(__file__).parents[1] / "integration" / "operators" / "dags"))
    assert {} == bag.import_errors
