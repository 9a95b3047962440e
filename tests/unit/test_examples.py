"""The example DAGs import, and Airflow can serialize them."""

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
    "flowservice_sensor": ["create", "wait"],
}


@pytest.fixture(scope="module")
def bag():
    """Airflow's own reading of the folder."""

    return versions.dag_bag(str(EXAMPLES))


def test_they_import_without_errors(bag):
    """All of them, and no other."""
    assert {} == bag.import_errors
    assert TASKS == {dag_id: sorted(dag.task_ids) for dag_id, dag in bag.dags.items()}


@pytest.mark.parametrize("dag_id", TASKS)
def test_they_survive_airflows_serialization(bag, dag_id):
    """Through JSON, as from the DAG processor to the scheduler: tasks, schedules and buttons stay."""
    text = json.dumps(DagSerialization.to_dict(bag.dags[dag_id]))
    scheduler_dag = DagSerialization.from_dict(json.loads(text))
    assert TASKS[dag_id] == sorted(scheduler_dag.task_ids)
    assert text == json.dumps(DagSerialization.to_dict(bag.dags[dag_id]))
    ours = [task for task in scheduler_dag.tasks if task.task_id in ("ingest", "create", "wait")]
    buttons = ("Open dataflow in Experience Platform", "Open in Experience Platform")
    assert {buttons} == {tuple(sorted(task.extra_links)) for task in ours}


def test_the_dags_of_these_tests_import_too():
    """What `dag.test()` runs."""

    bag = versions.dag_bag(str(Path(__file__).parents[1] / "integration" / "operators" / "dags"))
    assert {} == bag.import_errors
