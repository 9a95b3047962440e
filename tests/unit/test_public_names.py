# SPDX-License-Identifier: Apache-2.0
"""The names that users and Airflow's database keep do not change: entry points, XCom keys, task state, trigger."""

from __future__ import annotations

from importlib.metadata import entry_points

from airflow_flowservice import sensors
from airflow_flowservice._airflow import choose_window, flow_run_task, named_dataflow, task_context
from airflow_flowservice.hooks import FlowServiceHook
from airflow_flowservice.runs import intent_store
from airflow_flowservice.runs.summary import FlowRunSummary
from airflow_flowservice.triggers import FlowRunTrigger


def test_the_entry_points() -> None:
    """Airflow finds the provider and the plugin by these."""
    groups = ("apache_airflow_provider", "airflow.plugins")
    found = {
        (group, point.name, point.value)
        for group in groups
        for point in entry_points(group=group)
        if point.value.startswith("airflow_flowservice")
    }
    assert {
        (
            "apache_airflow_provider",
            "provider_info",
            "airflow_flowservice.get_provider_info:get_provider_info",
        ),
        ("airflow.plugins", "flowservice", "airflow_flowservice.plugins.plugin:FlowServicePlugin"),
    } == found


def test_the_xcom_keys() -> None:
    """DAGs pull these keys, and Airflow's database has them."""
    keys = (task_context.FLOW_RUN_KEY, task_context.URL_KEY, task_context.DATAFLOW_KEY)
    assert ("flow_run", "flow_run_url", "dataflow_url") == keys


def test_the_task_state_keys() -> None:
    """An attempt of the next version reads what an attempt of this version stored."""
    keys = (intent_store.STORE_KEY, choose_window._STORE_KEY, sensors._STORE_KEY, flow_run_task._ATTEMPT_KEY)
    assert ("flowservice_intent", "flowservice_window", "flowservice_status", "flowservice_attempt") == keys
    assert "flowservice_dataflow" == named_dataflow._STORE_KEY


def test_the_keys_of_the_xcom_flow_run() -> None:
    """The page, the command line and DAGs read these keys from earlier DAG runs."""
    summary = FlowRunSummary.of_new(flow_run_id="run", flow_id="flow", window=None, url="https://example.org")
    assert [
        "id",
        "flow_id",
        "status",
        "window_start",
        "window_end",
        "input_records",
        "output_records",
        "failed_records",
        "input_bytes",
        "output_bytes",
        "input_files",
        "output_files",
        "updated_records",
        "skipped_records",
        "deleted_records",
        "failed_records_derived",
        "errors",
        "url",
        "batches",
    ] == list(summary.to_json())


def test_the_class_path_of_the_trigger() -> None:
    """Airflow's database has the class path of each waiting trigger."""
    path, _ = FlowRunTrigger(flow_run_id="run").serialize()
    assert "airflow_flowservice.triggers.FlowRunTrigger" == path


def test_the_connection_type() -> None:
    """Connections in the database have this type."""
    assert ("flowservice", "flowservice_default") == (FlowServiceHook.conn_type, FlowServiceHook.default_conn_name)
