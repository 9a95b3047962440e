# SPDX-License-Identifier: Apache-2.0
"""Runs of whole DAGs with `dag.test()`, in process, with a real metadata database."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path

import pytest
from pages import PAGES, blocks

from airflow_flowservice._airflow import versions
from airflow_flowservice.emulator.server import running_emulator
from airflow_flowservice.emulator.settings import Settings

FLOW = "3abea21c-7e36-4be1-bec1-d3bad0e3e0de"
FILES = "c9cef9cb-c934-4467-8ef9-cbc934546741"
LOCAL_BUNDLE = "airflow.dag_processing.bundles.local.LocalDagBundle"
EXAMPLES = str(Path(__file__).parents[3] / "dags_examples")


@pytest.fixture
def run_dag(airflow_db, emulator, connection, monkeypatch):
    """Return a function that runs `dag.test()` for a DAG of `dags/`, and returns task states and XComs."""
    from airflow.models.variable import Variable
    from airflow.models.xcom import XComModel
    from airflow.sdk.execution_time import task_runner
    from airflow.utils.session import create_session

    monkeypatch.setenv("AIRFLOW_CONN_FLOWSERVICE_DEFAULT", json.dumps(connection))
    monkeypatch.delattr(task_runner, "SUPERVISOR_COMMS", raising=False)

    # The emulator starts without flow runs, so the ledger must not remember those of earlier tests.
    with create_session() as session:
        session.query(Variable).filter(Variable.key.startswith("flowservice.")).delete(synchronize_session=False)

    def run(dag_id, day, *, folder=None, conf=None):
        if folder is not None:
            # `dag.test()` stores the DAGs of the bundle.
            bundle = {"name": "dags-folder", "classpath": LOCAL_BUNDLE, "kwargs": {"path": folder}}
            monkeypatch.setenv("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST", json.dumps([bundle]))
        dag = versions.dag_bag(folder).get_dag(dag_id)
        dag.deadline = None  # `dag.test()` of Airflow 3.3.2 fails at the end of a DAG run with a deadline.
        dag_run = dag.test(logical_date=datetime(2026, 1, day, 3, tzinfo=timezone.utc), run_conf=conf)
        with create_session() as session:
            rows = session.query(XComModel).filter_by(dag_id=dag_id, run_id=dag_run.run_id).all()
            xcoms = {(row.task_id, row.key): row.value for row in rows}
        return {ti.task_id: str(ti.state) for ti in dag_run.get_task_instances()}, xcoms

    return run


@pytest.mark.slow
@pytest.mark.parametrize("dag_id", ["waits_on_the_worker", "waits_deferred"])
def test_a_dag_ingests_its_windows(run_dag, runs_of, dag_id):
    """Operator, sensor and a downstream task have the same states, XComs and windows in both ways of waiting."""
    states, xcoms = run_dag(dag_id, 10)
    assert {"ingest": "success", "create": "success", "wait": "success", "report": "success"} == states
    own, given = runs_of()
    assert ("2026-01-09T00:00:00Z", "2026-01-10T00:00:00Z") == (own["window_start"], own["window_end"])
    assert ("2026-01-05T00:00:00Z", "2026-01-07T03:00:00Z") == (given["window_start"], given["window_end"])
    assert own["id"] == xcoms["ingest", "return_value"] == xcoms["ingest", "flow_run"]["id"]
    assert given["id"] == xcoms["create", "return_value"] == xcoms["wait", "return_value"]
    assert ("success", "success") == (xcoms["ingest", "flow_run"]["status"], xcoms["wait", "flow_run"]["status"])
    assert "2026-01-05T00:00:00Z 3060" == xcoms["report", "return_value"]
    for task_id, run in (("ingest", own), ("create", given), ("wait", given)):
        assert xcoms[task_id, "flow_run_url"].endswith(f"/dataflows/{FLOW}/activity/{run['id']}")


@pytest.mark.slow
def test_a_dag_finds_its_dataflow_by_name(run_dag, emulator, runs_of):
    """The XComs and the ledger have the id; a late dataflow skips the sensor with `soft_fail`."""
    emulator.add_flow(id=FLOW, name="Orders")
    states, xcoms = run_dag("by_name", 10)
    assert {"ingest": "success", "watch": "skipped"} == states
    [run] = runs_of()
    assert (run["id"], FLOW) == (xcoms["ingest", "return_value"], xcoms["ingest", "flow_run"]["flow_id"])


@pytest.mark.slow
def test_a_failed_run_fails_its_task_and_can_be_repeated(run_dag, emulator, runs_of):
    """The failed task pushes the flow run's id, and a downstream task repeats that flow run."""
    emulator.plan_outcome(status="failed")
    states, xcoms = run_dag("goes_wrong", 10)
    assert {"failing": "failed", "again": "success"} == states
    old, new = runs_of()
    assert ("failed", "success", old["id"]) == (old["status"], new["status"], new["parent_flow_run_id"])
    assert new["id"] == xcoms["again", "return_value"]
    assert ("failed", "success") == (xcoms["failing", "flow_run"]["status"], xcoms["again", "flow_run"]["status"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dag_id", "dataflows"),
    [
        ("flowservice_daily", [FLOW]),
        ("flowservice_files_hourly", [FILES]),
        pytest.param(
            "flowservice_deadline", [FLOW], marks=pytest.mark.needs_airflow(3, 1, "it has no deadline alerts")
        ),
        ("flowservice_from_yaml", [FLOW, FILES]),
        ("flowservice_late_data", [FLOW]),
        ("flowservice_mapped", [FLOW, FILES]),
        ("flowservice_sensor", [FLOW]),
    ],
)
def test_an_example_ingests_its_windows(run_dag, runs_of, dag_id, dataflows):
    """All tasks of the example DAGs succeed, with one flow run for each dataflow."""
    states, _ = run_dag(dag_id, 10, folder=EXAMPLES)
    assert {"success"} == set(states.values())
    assert [1] * len(dataflows) == [len(runs_of(flow_id)) for flow_id in dataflows]


@pytest.mark.slow
def test_an_example_whose_dag_run_has_the_window_of_an_event(run_dag, runs_of):
    """A user who triggers the DAG names the window of the events in the conf."""
    window = {"window_start": "2026-01-09T00:00:00Z", "window_end": "2026-01-09T01:00:00Z"}
    states, _ = run_dag("flowservice_watcher", 10, folder=EXAMPLES, conf=window)
    assert {"ingest": "success"} == states
    [run] = runs_of(FILES)
    assert window == {name: run[name] for name in window}


@pytest.fixture
def sent(monkeypatch):
    """Return the list of e-mails, which are not sent."""
    from airflow.providers.smtp.notifications.smtp import SmtpNotifier

    texts = []
    monkeypatch.setattr(SmtpNotifier, "notify", lambda _, context: texts.append(context["flowservice_message"]))
    return texts


@pytest.mark.slow
def test_an_example_that_watches_dataflows(run_dag, sent):
    """The last window of the emulator's dataflows ended long ago, so both tasks fail and send an e-mail."""
    states, _ = run_dag("flowservice_watch", 10, folder=EXAMPLES)
    assert {"watch": "failed"} == states
    assert 2 == len(sent)


@pytest.fixture
def flow_runs_of_sandboxes(emulator, clock, connection, monkeypatch):
    """Create a connection for each of two sandboxes; return a function that counts the flow runs of each."""
    with running_emulator(Settings(sandbox="dev"), clock=clock) as dev:
        for each, sandbox in ((dev, "dev"), (emulator, "prod")):
            extra = {**connection["extra"], "ims_url": each.url, "sandbox": sandbox}
            variable = f"AIRFLOW_CONN_FLOWSERVICE_{sandbox.upper()}"
            monkeypatch.setenv(variable, json.dumps({**connection, "host": each.url, "extra": extra}))
        yield lambda: [len(each.state.runs) for each in (dev, emulator)]


@pytest.mark.slow
def test_an_example_with_two_sandboxes(run_dag, flow_runs_of_sandboxes):
    """Each task group uses the connection of its sandbox."""
    states, _ = run_dag("flowservice_sandboxes", 10, folder=EXAMPLES)
    assert {"dev.clicks": "success", "prod.clicks": "success"} == states
    assert [1, 1] == flow_runs_of_sandboxes()


PAGES_WITH_CODE = pytest.mark.parametrize(
    ("page", "dag_id", "dataflows"),
    [
        ("daily-table", "daily_table", [FLOW]),
        ("hourly-files", "hourly_files", [FILES]),
        ("operator-and-sensor", "create_and_wait", [FILES]),
        ("start-in-the-triggerer", "wait_without_worker", [FLOW]),
        ("mapped-dataflows", "many_dataflows", [FLOW, FILES]),
        ("ingest-again", "replace_orders", [FLOW]),
        ("late-data", "late_orders_moved", [FILES]),
        ("failed-records", "strict_orders", [FLOW]),
        ("alerts", "orders_with_alert", [FLOW]),
        ("ordered-windows", "ordered_orders", [FLOW]),
        ("dev-to-prod", "promoted_clicks", [FILES]),
        ("limit-flow-runs", "limited_orders", [FLOW]),
        pytest.param(
            "whole-days",
            "hourly_clicks",
            [FILES],
            marks=pytest.mark.needs_airflow(3, 3, "partitions at run time"),
        ),
        pytest.param(
            "partitions",
            "partitioned_orders",
            [FLOW],
            marks=pytest.mark.needs_airflow(3, 2, "partitioned timetables"),
        ),
        pytest.param(
            "chain-dags",
            "upstream_orders",
            [FLOW],
            marks=pytest.mark.needs_airflow(3, 1, "`dag.test()` regards a new asset as inactive"),
        ),
    ],
)
WINDOW = {"window_start": "2026-01-09T00:00:00Z", "window_end": "2026-01-09T01:00:00Z"}


@pytest.fixture
def run_page(run_dag, tmp_path):
    """Return a function that runs a DAG of a how-to page, and returns the states of its tasks."""

    def run(page, dag_id, *, conf=None):
        (text,) = blocks(f"docs/how-to/{page}.md", "python")
        (tmp_path / f"{dag_id}.py").write_text(text)
        return run_dag(dag_id, 10, folder=str(tmp_path), conf=conf)[0]

    return run


@pytest.mark.slow
@PAGES_WITH_CODE
def test_dag_of_a_how_to_page_ingests_its_windows(run_page, runs_of, page, dag_id, dataflows):
    """All tasks of the page's DAG succeed, with one flow run for each dataflow."""
    assert {"success"} == set(run_page(page, dag_id).values())
    assert [1] * len(dataflows) == [len(runs_of(flow_id)) for flow_id in dataflows]


@pytest.mark.slow
@pytest.mark.needs_airflow(3, 1, "watchers")
def test_dag_of_the_page_about_watchers_ingests_the_window_of_an_event(run_page, runs_of):
    """By hand, the window of the events is in the conf."""
    assert {"ingest": "success"} == run_page("follow-flow-runs", "after_customers", conf=WINDOW)
    [run] = runs_of(FILES)
    assert WINDOW == {name: run[name] for name in WINDOW}


@pytest.mark.slow
@pytest.mark.needs_airflow(3, 1, "`dag.test()` regards a new asset as inactive")
def test_downstream_dag_of_the_page_about_assets_ingests_the_window_of_an_event(run_page, runs_of):
    """Without events, the report fails, and the ingestion takes the window of the conf."""
    assert "success" == run_page("chain-dags", "downstream_returns", conf=WINDOW)["ingest"]
    [run] = runs_of(FILES)
    assert WINDOW == {name: run[name] for name in WINDOW}


@pytest.mark.slow
def test_dag_of_the_page_about_sandboxes_uses_each_connection(run_page, flow_runs_of_sandboxes):
    assert {"dev.clicks": "success", "prod.clicks": "success"} == run_page("several-sandboxes", "two_sandboxes")
    assert [1, 1] == flow_runs_of_sandboxes()


def test_each_how_to_page_with_code_is_run():
    """A test above runs the DAG of each how-to page that has one."""
    run = {getattr(each, "values", each)[0] for each in PAGES_WITH_CODE.args[1]}
    pages = {name for name in PAGES if name.startswith("docs/how-to/") and blocks(name, "python")}
    assert {f"docs/how-to/{name}.md" for name in run | {"follow-flow-runs", "several-sandboxes"}} == pages
