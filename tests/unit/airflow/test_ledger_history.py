# SPDX-License-Identifier: Apache-2.0
"""Verify which entries of the ledger Airflow's history gives."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from airflow_flowservice._airflow.database import TaskRow
from airflow_flowservice._airflow.ledger_history import ledger_history
from airflow_flowservice._airflow.pages import ExperiencePages, pages_of
from airflow_flowservice.ledger.entry import DataflowKey, EntryState
from airflow_flowservice.runs.summary import FlowRunSummary
from airflow_flowservice.windows.schedule import RunDates
from airflow_flowservice.windows.window import IngestionWindow

BEGIN = datetime(2026, 1, 1, tzinfo=timezone.utc)
WINDOW = IngestionWindow(BEGIN, BEGIN + timedelta(days=1))
PAGES = ExperiencePages(organization="A/B@AdobeOrg", sandbox="prod 1")


def row(flow_run_id="r", *, run_id="run", state="success", creates=True, status="success", task_id="ingest", **values):
    given = {"flow_id": "f", "window": WINDOW, "url": PAGES.flow_run("f", flow_run_id), **values}
    return TaskRow(
        dag_id="dag",
        run_id=run_id,
        run_state="success",
        task_id=task_id,
        map_index=-1,
        state=state,
        run_type="scheduled",
        conf={},
        dates=RunDates(run_after=BEGIN),
        creates=creates,
        flow_run=FlowRunSummary(id=flow_run_id, status=status, output_records=7, **given),
    )


def test_entry_of_a_success():
    """The entry has organization and sandbox of the page, and its owner delivered the success."""
    history = ledger_history([row()], now=5.0)
    (entry,) = history.entries.values()
    assert (DataflowKey("A/B@AdobeOrg", "prod 1", "f"), WINDOW) == entry.key
    assert (EntryState.INGESTED, "dag/run/ingest/-1", "r", True) == (
        entry.state,
        entry.owner,
        entry.flow_run_id,
        entry.delivered,
    )
    assert (7, 5.0, 0) == (entry.output_records, entry.updated_at, entry.version)


@pytest.mark.parametrize("status", ["created", "failed", "unknown"])
def test_only_successes_have_an_entry(status):
    assert {} == ledger_history([row(status=status)], now=0).entries


def test_partial_success_has_an_entry():
    assert 1 == len(ledger_history([row(status="partial_success")], now=0).entries)


def test_sensor_has_the_result_of_the_operator():
    """The owner is the task that created the flow run, and the sensor's XCom has the result."""
    rows = [row(status="created"), row(creates=False, task_id="wait")]
    (entry,) = ledger_history(rows, now=0).entries.values()
    assert ("dag/run/ingest/-1", True) == (entry.owner, entry.delivered)


@pytest.mark.parametrize(("state", "creates"), [("up_for_retry", True), ("success", False), (None, True)])
def test_success_that_the_creating_task_did_not_end_with(state, creates):
    (entry,) = ledger_history([row(state=state, creates=creates)], now=0).entries.values()
    assert not entry.delivered


def test_last_flow_run_of_a_window_is_used():
    history = ledger_history([row("first", run_id="1"), row("last", run_id="2")], now=0)
    assert (["last"], 1) == ([each.flow_run_id for each in history.entries.values()], len(history.repeated))


@pytest.mark.parametrize("values", [{"flow_id": None}, {"window": None}, {"url": None}, {"url": "https://other/"}])
def test_success_without_a_key_is_omitted(values):
    history = ledger_history([row(**values)], now=0)
    assert ({}, {"r"}) == (history.entries, history.omitted)


@pytest.mark.parametrize("page", [PAGES.dataflow(None), PAGES.dataflow("f"), PAGES.flow_run("f", "r")])
def test_pages_of_a_page(page):
    assert PAGES == pages_of(page)


@pytest.mark.parametrize(
    "url", [None, "", "https://experience.adobe.com/#/@org", "https://experience.adobe.com/#/@/sname:/x", "http://x"]
)
def test_url_of_no_sandbox(url):
    assert pages_of(url) is None
