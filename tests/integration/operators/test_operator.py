"""`OnDemandFlowRunOperator`: creates the run of its window, waits as asked, and says what came of it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from airflow_flowservice.exceptions import (
    FlowRunFailedError,
    FlowRunTimeoutError,
    FlowRunVanishedError,
)
from airflow_flowservice.operators import OnDemandFlowRunOperator

FLOW = "3abea21c-7e36-4be1-bec1-d3bad0e3e0de"
FILES = "c9cef9cb-c934-4467-8ef9-cbc934546741"
WINDOW = "2026-01-09T00:00:00Z/2026-01-10T00:00:00Z"
PAGE = "https://experience.adobe.com/#/@EMULATOR@AdobeOrg/sname:prod/platform/source/dataflows"
WAYS = pytest.mark.parametrize("deferrable", [False, True], ids=["on a worker", "in the triggerer"])


@pytest.fixture
def ingest(worker):
    """The daily task of the table-based flow; waits unless told otherwise."""

    def make(**arguments):
        defaults = {
            "flow_id": FLOW,
            "delta_column": "updated_at",
            "wait_for_completion": True,
            "deferrable": False,
            "poll_interval": 0.05,
            "retries": 2,
            "uncertain_patience": 1.0,
        }
        return worker.task(OnDemandFlowRunOperator, **{**defaults, **arguments})

    return make


# --- creating and waiting ---


def test_creates_the_run_of_its_window_and_ends(ingest, runs_of):
    """Without `wait_for_completion` the task ends as soon as the run exists."""
    task = ingest(wait_for_completion=False)
    assert "success" == task.run().state
    [run] = runs_of()
    assert ("2026-01-09T00:00:00Z", "2026-01-10T00:00:00Z") == (run["window_start"], run["window_end"])
    assert run["id"] == task.xcoms["return_value"]
    assert ("created", []) == (task.xcoms["flow_run"]["status"], task.xcoms["flow_run"]["errors"])


@WAYS
def test_waits_until_the_run_has_ended(ingest, runs_of, deferrable):
    """The task is a success when the flow run is."""
    assert "success" == ingest(deferrable=deferrable).run().state
    assert ["success"] == [run["status"] for run in runs_of()]


@WAYS
def test_the_xcoms_are_the_same_in_every_way_of_waiting(ingest, runs_of, deferrable):
    """`return_value`, `flow_run` with all of its keys, and the pages for the buttons."""
    task = ingest(deferrable=deferrable)
    task.run()
    [run] = runs_of()
    url = f"{PAGE}/{FLOW}/activity/{run['id']}"
    expected = {
        "return_value": run["id"],
        "flow_run_url": url,
        "dataflow_url": f"{PAGE}/{FLOW}",
        "flow_run": {
            "id": run["id"],
            "flow_id": FLOW,
            "status": "success",
            "window_start": "2026-01-09T00:00:00Z",
            "window_end": "2026-01-10T00:00:00Z",
            "input_records": 1440,
            "output_records": 1440,
            "failed_records": 0,
            "input_bytes": 172800,
            "output_bytes": 120960,
            "input_files": 24,
            "output_files": 1,
            "errors": [],
            "url": url,
        },
    }
    assert expected == task.xcoms


@pytest.mark.needs_airflow(3, 3, "a trigger that can be relied on to end a task")
def test_a_success_ends_in_the_triggerer_without_a_second_worker(ingest):
    """A deferred success needs no worker slot again."""
    ended = ingest(deferrable=True).run()
    assert "TaskSuccessEvent" == type(ended.message).__name__


def test_a_task_with_outlets_resumes_on_a_worker(ingest):
    """Airflow sends asset events from a worker only, so a task with outlets ends there."""
    from airflow.sdk import Asset

    task = ingest(deferrable=True, outlets=[Asset("orders")])
    ended = task.run()
    assert ("SucceedTask", ["orders"]) == (
        type(ended.message).__name__,
        [outlet.name for outlet in ended.message.task_outlets],
    )
    assert "success" == task.xcoms["flow_run"]["status"]


def test_the_deferrable_default_is_airflows(ingest, monkeypatch):
    """`[operators] default_deferrable` decides when the task does not."""
    monkeypatch.setenv("AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE", "True")
    assert ingest(deferrable=None).operator.deferrable is True


@WAYS
def test_nothing_is_pushed_as_return_value_when_the_task_wants_none(ingest, deferrable):
    """`do_xcom_push=False` is obeyed in every way of waiting."""
    task = ingest(deferrable=deferrable, do_xcom_push=False)
    assert "success" == task.run().state
    assert "return_value" not in task.xcoms


def test_the_wait_works_when_runs_show_no_window(ingest, emulator, runs_of):
    """A service that shows no windows changes nothing: the window asked for is the one reported."""
    emulator.plan_fault(kind="*", action="hide_windows")
    task = ingest()
    task.run()
    assert "2026-01-09T00:00:00Z" == task.xcoms["flow_run"]["window_start"]


def test_one_log_line_for_each_change_of_status(ingest, clock, emulator, log):
    """The log tells the run's story, not the story of the polling."""
    clock.set(speed=6.0)
    ingest(poll_interval=0.01).run()
    said = [line.split(" is ")[1].split()[0] for line in log() if "runs.watch" in line]
    assert said == list(dict.fromkeys(said))
    assert "success" == said[-1]
    assert emulator.ledger()["requests"]["GET /runs/{id}"] > len(said)


def test_the_log_names_window_run_and_page(ingest, runs_of, log):
    """Whoever opens the log finds the window, the run and its page without searching."""
    ingest().run()
    [run] = runs_of()
    text = "\n".join(log())
    assert f"Window {WINDOW} (86,400 seconds) of dataflow {FLOW}" in text
    assert f"Flow run {run['id']} created for window {WINDOW}: {PAGE}/{FLOW}/activity/{run['id']}" in text
    assert f"Flow run {run['id']} ended as success, window {WINDOW}, 1,440 records read" in text


# --- how runs end ---


@WAYS
def test_a_failed_run_fails_the_task_with_the_runs_own_errors(ingest, emulator, runs_of, deferrable):
    """The message shows Adobe's errors; the fields say which flow, run and window."""
    emulator.plan_outcome(status="Failed", errors=[{"code": "CONNECTOR-2001-500", "message": "the column is gone"}])
    ended = ingest(deferrable=deferrable).run()
    [run] = runs_of()
    error = ended.error
    assert isinstance(error, FlowRunFailedError)
    assert "the flow run ended as failed: CONNECTOR-2001-500: the column is gone" == error.message
    assert (FLOW, run["id"], WINDOW) == (error.flow_id, error.flow_run_id, error.window)
    assert ("CONNECTOR-2001-500", f"{PAGE}/{FLOW}/activity/{run['id']}") == (error.code, error.url)
    assert "a retry or a clear creates a new run" in error.remedy


@WAYS
def test_a_failed_run_may_be_retried_with_a_new_run(ingest, emulator, runs_of, deferrable):
    """The operator's retry asks for the same window again, and the second run is the one reported."""
    emulator.plan_outcome(status="failed")
    task = ingest(deferrable=deferrable)
    assert ["up_for_retry", "success"] == [task.run().state, task.run().state]
    assert [("failed", 0), ("success", 1440)] == [(run["status"], run["records"]) for run in runs_of()]
    assert runs_of()[1]["id"] == task.xcoms["return_value"]


@WAYS
def test_a_failed_attempt_calls_back(ingest, supervisor, emulator, deferrable):
    """Nothing of ours keeps Airflow from what it does after an attempt that is retried."""
    emulator.plan_outcome(status="failed")
    called = []
    ended = ingest(deferrable=deferrable, on_retry_callback=lambda context: called.append(context["ti"].task_id)).run()
    assert ("up_for_retry", ["task"], []) == (ended.state, called, supervisor.refused)


@WAYS
def test_a_failed_runs_summary_is_in_the_xcom(ingest, emulator, deferrable):
    """A callback or a later task can read what went wrong."""
    emulator.plan_outcome(status="failed", errors=[{"code": "CONNECTOR-1001-500", "message": "no copy"}])
    task = ingest(deferrable=deferrable)
    task.run()
    assert "failed" == task.xcoms["flow_run"]["status"]
    assert [{"code": "CONNECTOR-1001-500", "message": "no copy"}] == task.xcoms["flow_run"]["errors"]


@WAYS
def test_partial_success_is_a_success_that_counts_what_failed(ingest, emulator, deferrable):
    """Records under Adobe's error threshold do not fail the task; the XCom has their number."""
    emulator.plan_outcome(status="partialSuccess", failed_records=5)
    task = ingest(deferrable=deferrable)
    assert "success" == task.run().state
    found = task.xcoms["flow_run"]
    assert ("partial_success", 1435, 5) == (found["status"], found["output_records"], found["failed_records"])


def test_errors_of_a_successful_run_are_warned_of(ingest, emulator, log):
    """A success can carry errors; they are in the log."""
    emulator.plan_outcome(status="success", errors=[{"code": "DCVS-1000-400", "message": "a value was refused"}])
    assert "success" == ingest().run().state
    assert any("reports DCVS-1000-400: a value was refused" in line and "[warning]" in line for line in log())


@WAYS
def test_a_success_without_records_is_a_success(ingest, emulator, deferrable):
    """Zero records come without output counts, which are then unknown, not zero."""
    emulator.plan_outcome(status="success", records=0)
    task = ingest(deferrable=deferrable)
    assert "success" == task.run().state
    assert (0, None) == (task.xcoms["flow_run"]["input_records"], task.xcoms["flow_run"]["output_records"])


def test_an_unknown_status_word_is_waited_for_until_the_time_is_over(ingest, emulator, runs_of, log):
    """A word that nobody has heard of is neither success nor failure; the log says so once."""
    emulator.plan_outcome(status="MELTED")
    ended = ingest(wait_timeout=1.0).run()
    [run] = runs_of()
    assert isinstance(ended.error, FlowRunTimeoutError)
    assert "the flow run has not ended within wait_timeout, 1 second; its last status is MELTED" == ended.error.message
    assert (FLOW, run["id"], WINDOW) == (ended.error.flow_id, ended.error.flow_run_id, ended.error.window)
    assert "waits for the same run" in ended.error.remedy
    assert 1 == sum("has the unknown status" in line for line in log())


@WAYS
def test_a_run_that_vanishes_ends_the_task_at_once(ingest, emulator, runs_of, deferrable):
    """A 404 after the run was seen is no reason to make another run: somebody has to look."""
    emulator.plan_outcome(vanish=True)
    ended = ingest(deferrable=deferrable).run()
    [run] = runs_of()
    error = ended.error
    assert ("failed", True) == (ended.state, isinstance(error, FlowRunVanishedError))
    assert (FLOW, run["id"], WINDOW) == (error.flow_id, error.flow_run_id, error.window)
    assert (404, "FLOW-1101-404", True) == (error.http_status, error.code, bool(error.request_id))
    assert f"{PAGE}/{FLOW}/activity/{run['id']}" == error.url
    assert "check in Experience Platform whether the window is ingested" in error.remedy


def test_a_404_before_the_run_was_seen_is_waited_out(ingest, emulator, log):
    """A new run may take minutes to show."""
    emulator.plan_fault(kind="POST /runs", action="delay_runs", seconds=4)
    assert "success" == ingest().run().state
    assert 1 == sum("cannot be read yet" in line for line in log())


# --- deferring ---


def test_the_trigger_gets_the_shorter_of_the_two_time_limits(ingest):
    """`wait_timeout` and `execution_timeout` both bound the time in the triggerer."""
    task = ingest(deferrable=True, wait_timeout=60, execution_timeout=timedelta(seconds=20))
    task.try_number = 1
    assert timedelta(seconds=20) == task.step().message.trigger_timeout


def test_killing_the_task_says_that_the_run_goes_on(ingest, runs_of, log):
    """Adobe cannot cancel a run, and the log says where to see it."""
    task = ingest(wait_for_completion=False)
    task.run()
    task.last.on_kill()
    [run] = runs_of()
    [line] = [line for line in log() if "Adobe cannot cancel" in line]
    assert f"flow run {run['id']}, so it goes on; see {PAGE}/{FLOW}/activity/{run['id']}" in line


def test_killing_a_task_that_created_nothing_says_nothing(ingest, log):
    """Nothing goes on, so nothing is said."""
    ingest().operator.on_kill()
    assert [] == [line for line in log() if "Adobe" in line]


# --- arguments ---


def test_the_template_fields_are_pinned():
    """What can be templated is part of the interface."""
    expected = ("flow_id", "delta_column", "window_start", "window_end", "start_time")
    assert expected == OnDemandFlowRunOperator.template_fields


def test_templates_are_rendered_before_anything_is_asked(ingest, emulator, runs_of):
    """The flow and the delta column can come from the DAG run's configuration."""
    task = ingest(
        flow_id="{{ dag_run.conf['flow'] }}",
        delta_column={"name": "{{ dag_run.conf['column'] }}"},
        conf={"flow": FLOW, "column": "changed"},
        wait_for_completion=False,
    )
    task.run()
    [run] = runs_of()
    assert {"name": "changed"} == emulator.state.runs[run["id"]].params["deltaColumn"]


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("updated_at", {"name": "updated_at"}),
        (
            {"name": "updated_at", "dateFormat": "yyyy-MM-dd HH:mm:ss", "timezone": "UTC"},
            {"name": "updated_at", "dateFormat": "yyyy-MM-dd HH:mm:ss", "timezone": "UTC"},
        ),
    ],
    ids=["a name", "a mapping"],
)
def test_the_delta_column_is_sent_as_adobe_wants_it(ingest, emulator, runs_of, given, sent):
    """A name is short for a mapping with a name."""
    ingest(delta_column=given, wait_for_completion=False).run()
    [run] = runs_of()
    assert sent == emulator.state.runs[run["id"]].params["deltaColumn"]


def test_a_delta_column_that_the_flow_has_is_not_sent_again(ingest, emulator, runs_of):
    """After the first run the flow knows it."""
    emulator.add_flow(id=FLOW, kind="table", delta_column="updated_at")
    ingest(wait_for_completion=False).run()
    [run] = runs_of()
    assert "deltaColumn" not in emulator.state.runs[run["id"]].params


def test_a_file_based_flow_needs_no_delta_column(ingest, emulator, runs_of):
    """Files have timestamps of their own."""
    assert "success" == ingest(flow_id=FILES, delta_column=None).run().state
    [run] = runs_of(FILES)
    assert {"startTime", "windowStartTime", "windowEndTime"} == set(emulator.state.runs[run["id"]].params)


def test_without_check_flow_the_dataflow_is_not_read(ingest, emulator):
    """`check_flow=False` saves a request and leaves judging to Flow Service."""
    ingest(check_flow=False, wait_for_completion=False).run()
    assert "GET /flows/{id}" not in emulator.ledger()["requests"]


def test_the_dataflow_is_read_once_before_its_run_is_created(ingest, emulator):
    """What Flow Service would refuse is said earlier and better."""
    ingest(wait_for_completion=False).run()
    assert 1 == emulator.ledger()["requests"]["GET /flows/{id}"]


@pytest.mark.parametrize("shift", [0, 3600])
def test_the_start_time_is_sent_as_given(ingest, emulator, runs_of, clock, shift):
    """`start_time` says when the run begins."""
    start = int(clock()) + shift + 5
    ingest(start_time=str(start), wait_for_completion=False).run()
    [run] = runs_of()
    assert str(start) == emulator.state.runs[run["id"]].params["startTime"]


@pytest.mark.parametrize(("epoch_format", "kind"), [("string", str), ("integer", int)])
def test_times_are_sent_as_the_connection_says(ingest, connection, emulator, runs_of, epoch_format, kind):
    """Adobe's pages disagree about strings and integers; the connection decides."""
    connection["extra"]["epoch_format"] = epoch_format
    ingest(wait_for_completion=False).run()
    [run] = runs_of()
    sent = emulator.state.runs[run["id"]].params
    assert {kind} == {type(sent[name]) for name in ("startTime", "windowStartTime", "windowEndTime")}
