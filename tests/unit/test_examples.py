"""Tests of the example DAGs: they import without errors, and Airflow can serialize them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from airflow_versions import DagSerialization

from airflow_flowservice._airflow import versions

EXAMPLES = Path(__file__).parents[2] / "dags_examples"
TASKS = {
    "flowservice_daily": ["ingest"],
    "flowservice_files_hourly": ["ingest", "report"],
    "flowservice_from_yaml": ["clicks", "orders"],
    "flowservice_mapped": ["ingest"],
    "flowservice_sandboxes": ["dev.clicks", "prod.clicks"],
    "flowservice_sensor": ["create", "wait"],
    "flowservice_watcher": ["ingest"],
}


@pytest.fixture(scope="module")
def bag():
    """Return the DAGs that Airflow finds in the folder."""
    return versions.dag_bag(str(EXAMPLES))


def test_examples_import_without_errors(bag):
    """The folder has exactly these DAGs and tasks."""
    assert {} == bag.import_errors
    assert TASKS == {dag_id: sorted(dag.task_ids) for dag_id, dag in bag.dags.items()}


@pytest.mark.parametrize("dag_id", TASKS)
def test_examples_are_unchanged_by_serialization(bag, dag_id):
    """Tasks, schedules and buttons survive the way from the DAG processor to the scheduler, as JSON."""
    text = json.dumps(DagSerialization.to_dict(bag.dags[dag_id]))
    scheduler_dag = DagSerialization.from_dict(json.loads(text))
    assert TASKS[dag_id] == sorted(scheduler_dag.task_ids)
    assert text == json.dumps(DagSerialization.to_dict(bag.dags[dag_id]))
    ours = [task for task in scheduler_dag.tasks if task.task_id != "report"]
    buttons = ("Open dataflow in Experience Platform", "Open in Experience Platform")
    assert {buttons} == {tuple(sorted(task.extra_links)) for task in ours}


def test_dags_of_the_integration_tests_import_without_errors():
    """These DAGs are run by `dag.test()`."""
    bag = versions.dag_bag(str(Path(__file__).parents[1] / "integration" / "operators" / "dags"))
    assert {} == bag.import_errors
