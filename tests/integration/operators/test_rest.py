# SPDX-License-Identifier: Apache-2.0
"""`on_overlap="rest"`: a task ingests only the pieces of its window that other tasks have not ingested."""

from __future__ import annotations

import pytest
from airflow_versions import VERSION

from airflow_flowservice._airflow.variable_ledger import VariableLedger
from airflow_flowservice.api.client import FlowServiceClient
from airflow_flowservice.exceptions import ConfigurationError, FlowRunFailedError, WindowIngestedError
from airflow_flowservice.ledger.entry import EntryState
from airflow_flowservice.ledger.sql_ledger import SqlLedger
from airflow_flowservice.operators import OnDemandFlowRunOperator

FLOW = "3abea21c-7e36-4be1-bec1-d3bad0e3e0de"
HOURS = [f"2026-01-09T{hour:02}:00:00Z" for hour in range(24)]
WHOLE = (HOURS[0], "2026-01-10T00:00:00Z")
WAYS = pytest.mark.parametrize("deferrable", [False, True], ids=["on a worker", "in the triggerer"])
LISTS_KEYS = pytest.mark.needs_airflow(3, 3, "a list of Variables in a task")


class Killed(BaseException):
    """The worker process ends at once."""


@pytest.fixture
def ledger(supervisor, connection, tmp_path):
    """Return the SQL ledger of the connection."""
    found = SqlLedger(f"sqlite:///{tmp_path / 'ledger.db'}")
    found.migrate()
    supervisor.connections["ledger"] = {"conn_type": "sqlite", "host": str(tmp_path / "ledger.db")}
    connection["extra"]["ledger_conn_id"] = "ledger"
    return found


@pytest.fixture
def ingest(worker):
    """Return a function that makes a daily task that ingests the rest of its window, and waits."""

    def make(**arguments):
        defaults = {"flow_id": FLOW, "delta_column": "updated_at", "retries": 2, "uncertain_patience": 1.0}
        defaults |= {"on_overlap": "rest", "wait_for_completion": True, "poll_interval": 0.05}
        return worker.task(OnDemandFlowRunOperator, **{**defaults, **arguments})

    return make


@pytest.fixture
def part(ingest):
    """Return a function that ingests hours of the day in another task."""

    def make(start, end, **arguments):
        task = ingest(task_id=f"part_{start}", window_start=HOURS[start], window_end=HOURS[end], **arguments)
        assert "success" == task.run().state
        return task.xcoms["return_value"]

    return make


def windows(runs):
    return [(run["window_start"], run["window_end"]) for run in runs]


def entries(ledger):
    """Return start hour, state and delivery of the ledger's entries."""
    return [(each.window.start.hour, each.state.value, each.delivered) for each in ledger.entries()]


@WAYS
def test_one_piece_is_ingested(ledger, ingest, part, runs_of, deferrable):
    """The task has the same results as with a whole window."""
    part(0, 6)
    task = ingest(deferrable=deferrable)
    assert "success" == task.run().state
    [_, rest] = runs_of()
    assert (HOURS[6], WHOLE[1], "success") == (rest["window_start"], rest["window_end"], rest["status"])
    [summary] = task.xcoms["flow_runs"]
    assert task.xcoms["flow_run"] == summary
    assert (rest["id"], rest["id"]) == (task.xcoms["return_value"], summary["id"])
    assert ("success", HOURS[6], "/".join(WHOLE)) == (summary["status"], summary["window_start"], summary["part_of"])
    assert WHOLE == (task.last.window_start, task.last.window_end)


@WAYS
def test_two_pieces_are_ingested_in_order(ledger, ingest, part, runs_of, deferrable):
    """The second flow run is created after the end of the first."""
    part(6, 12)
    task = ingest(deferrable=deferrable)
    ended = task.run()
    while ended.state == "deferred":
        ended = task._resumed(ended.message)
    assert "success" == ended.state
    [_, first, second] = runs_of()
    assert [(HOURS[0], HOURS[6]), (HOURS[12], WHOLE[1])] == windows([first, second])
    assert [first["id"], second["id"]] == [each["id"] for each in task.xcoms["flow_runs"]]
    assert ["success", "success"] == [each["status"] for each in task.xcoms["flow_runs"]]
    assert second["id"] == task.xcoms["return_value"] == task.xcoms["flow_run"]["id"]
    assert [(0, "ingested", True), (6, "ingested", True), (12, "ingested", True)] == entries(ledger)
    assert (2 if deferrable else 0) == len(task.triggers)


def test_a_task_that_does_not_wait_creates_all_pieces(ledger, ingest, part, runs_of):
    part(6, 12)
    task = ingest(wait_for_completion=False)
    assert "success" == task.run().state
    assert 3 == len(runs_of())
    assert ["created", "created"] == [each["status"] for each in task.xcoms["flow_runs"]]
    assert [(0, "created", True), (6, "ingested", True), (12, "created", True)] == entries(ledger)


def test_a_window_without_ingested_parts_is_ingested_as_usual(ledger, ingest, runs_of):
    task = ingest(deferrable=False)
    assert "success" == task.run().state
    assert [WHOLE] == windows(runs_of())
    assert "flow_runs" not in task.xcoms
    assert "part_of" not in task.xcoms["flow_run"]


@pytest.mark.parametrize("on_overlap", ["fail", "rest", "restate"])
def test_a_second_dag_run_reuses_the_pieces(ledger, ingest, part, runs_of, on_overlap):
    """All parts are ingested, so the whole window is, and no request is sent to Flow Service."""
    part(6, 12)
    assert "success" == ingest(deferrable=False).run().state
    created = [run["id"] for run in runs_of()]
    task = ingest(task_id="second", deferrable=False, on_overlap=on_overlap)
    assert "success" == task.run().state
    assert created == [run["id"] for run in runs_of()]
    assert created[-1] == task.xcoms["return_value"]
    assert [created[1], created[0], created[2]] == [each["id"] for each in task.xcoms["flow_runs"]]
    assert 3 == len(list(ledger.entries()))


@pytest.mark.parametrize(("on_ingested", "state"), [("fail", "failed"), ("skip", "skipped")])
def test_on_ingested_applies_to_a_window_ingested_in_parts(ledger, ingest, part, runs_of, on_ingested, state):
    part(0, 12)
    assert "success" == ingest(deferrable=False).run().state
    ended = ingest(task_id="second", deferrable=False, on_ingested=on_ingested).run()
    assert state == ended.state
    assert 2 == len(runs_of())
    assert state == "skipped" or isinstance(ended.error, WindowIngestedError)


@pytest.mark.slow
@pytest.mark.parametrize("call", ["before", "after"])
def test_a_worker_that_dies_between_the_pieces_is_continued(ledger, ingest, part, runs_of, monkeypatch, call):
    """The worker dies before or after the POST for the second piece."""
    part(6, 12)
    task = ingest(deferrable=False)
    create = FlowServiceClient.create_run
    with monkeypatch.context() as patch:

        def dies(self, **arguments):
            if arguments["window"].start.hour == 0:
                return create(self, **arguments)
            if call == "after":
                create(self, **arguments)
            raise Killed

        patch.setattr(FlowServiceClient, "create_run", dies)
        assert "success" != task.run().state
    assert [(0, "ingested", False), (6, "ingested", True), (12, "claimed", False)] == entries(ledger)
    assert "success" == task.run().state
    assert [(HOURS[6], HOURS[12]), (HOURS[0], HOURS[6]), (HOURS[12], WHOLE[1])] == windows(runs_of())
    assert [(0, "ingested", True), (6, "ingested", True), (12, "ingested", True)] == entries(ledger)


def test_a_lost_response_of_the_second_piece_creates_no_other_run(ledger, ingest, part, emulator, runs_of):
    part(6, 12)
    emulator.plan_fault(kind="POST /runs", action="record_and_close", nth=2)
    assert "success" == ingest(deferrable=False).run().state
    assert [(HOURS[6], HOURS[12]), (HOURS[0], HOURS[6]), (HOURS[12], WHOLE[1])] == windows(runs_of())


@WAYS
@pytest.mark.parametrize("clears", [False, True], ids=["retry", "clear"])
def test_only_the_failed_piece_is_repeated(ledger, ingest, part, emulator, runs_of, deferrable, clears):
    """A clear of the failed task is no request to ingest the first piece again."""
    part(6, 12)
    emulator.plan_outcome(status="success", times=1)
    emulator.plan_outcome(status="failed", times=1)
    task = ingest(deferrable=deferrable, retries=0 if clears else 2)

    def run():
        ended = task.run()
        while ended.state == "deferred":
            ended = task._resumed(ended.message)
        return ended

    ended = run()
    assert ("failed" if clears else "up_for_retry") == ended.state
    assert isinstance(ended.error, FlowRunFailedError)
    assert ["success", "failed"] == [each["status"] for each in task.xcoms["flow_runs"]]
    if clears:
        task.clear()
    assert "success" == run().state
    first, second = (HOURS[0], HOURS[6]), (HOURS[12], WHOLE[1])
    assert [(HOURS[6], HOURS[12]), first, second, second] == windows(runs_of())


def test_a_clear_of_a_success_ingests_the_pieces_again(ledger, ingest, part, runs_of):
    """The part of the other task stays."""
    part(0, 12)
    task = ingest(deferrable=False)
    assert "success" == task.run().state
    task.clear()
    assert "success" == task.run().state
    assert [(HOURS[0], HOURS[12]), (HOURS[12], WHOLE[1]), (HOURS[12], WHOLE[1])] == windows(runs_of())


def test_time_limits_apply_to_each_piece(ledger, ingest, part, runs_of, wait_for_end):
    """If a piece has ended when the trigger times out, the task continues with the next one."""
    part(6, 12)
    task = ingest(deferrable=True, wait_timeout=60.0)
    task.try_number = 1
    ended = task.step()
    assert "deferred" == ended.state
    wait_for_end(runs_of()[-1]["id"])
    ended = task.step("__fail__", {"error": "Trigger timeout"})
    assert "deferred" == ended.state
    assert (HOURS[12], WHOLE[1]) == windows(runs_of())[-1]


@pytest.mark.parametrize(("records", "state"), [(0, "skipped"), (5, "success")])
def test_limits_apply_to_the_sum(ledger, ingest, part, emulator, records, state):
    """The task is skipped only if no piece has records."""
    part(6, 12)
    emulator.plan_outcome(status="success", records=0, times=1)
    emulator.plan_outcome(status="success", records=records, times=1)
    task = ingest(deferrable=False, on_empty="skip")
    assert state == task.run().state
    assert 2 == len(task.xcoms["flow_runs"])


@LISTS_KEYS
def test_pieces_are_found_in_variables(ingest, part, runs_of, supervisor):
    """The ledger in Airflow's Variables can be listed from Airflow 3.3 on."""
    part(6, 12, deferrable=False)
    assert "success" == ingest(deferrable=False).run().state
    assert [(HOURS[6], HOURS[12]), (HOURS[0], HOURS[6]), (HOURS[12], WHOLE[1])] == windows(runs_of())
    found = list(VariableLedger().entries())
    assert [EntryState.INGESTED] * 3 == [each.state for each in found]


@pytest.mark.parametrize("kept", ["none", "airflow"])
def test_a_ledger_that_cannot_be_searched_is_refused(ingest, emulator, monkeypatch, kept):
    """Otherwise, the parts would be ingested again."""
    monkeypatch.setenv("AIRFLOW__FLOWSERVICE__LEDGER", kept)
    if kept == "airflow" and VERSION >= (3, 3):
        monkeypatch.delattr("airflow.sdk.execution_time.comms.GetVariableKeys")
    ended = ingest(deferrable=False).run()
    assert ("failed", True) == (ended.state, isinstance(ended.error, ConfigurationError))
    assert "on_overlap='rest' requires a ledger" in ended.error.message
    assert "POST /runs" not in emulator.ledger()["requests"]


def test_the_event_of_an_outlet_has_the_whole_window(ledger, ingest, part, supervisor):
    """A DAG that it triggers takes the task's window, with the sums of the records."""
    from airflow.sdk import Asset

    supervisor.assets = {"experience://orders": "orders"}
    part(6, 12)
    task = ingest(deferrable=False, outlets=[Asset(name="orders", uri="experience://orders")])
    ended = task.run()
    assert "success" == ended.state
    [event] = ended.message.outlet_events
    extra = event["extra"]
    assert WHOLE == (extra["window_start"], extra["window_end"])
    assert sum(each["output_records"] for each in task.xcoms["flow_runs"]) == extra["output_records"]


@pytest.mark.needs_airflow(3, 1, "questions to a person")
def test_a_question_and_the_rest_cannot_be_combined():
    """A question is of one window."""
    with pytest.raises(ConfigurationError, match="cannot be combined"):
        OnDemandFlowRunOperator(task_id="task", flow_id=FLOW, on_overlap="rest", on_uncertain="ask")
