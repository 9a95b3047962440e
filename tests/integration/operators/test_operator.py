# SPDX-License-Identifier: Apache-2.0
"""Tests of `OnDemandFlowRunOperator`: creation, waiting and results."""

from __future__ import annotations

from datetime import timedelta

import pytest

from airflow_flowservice.exceptions import (
    DeltaColumnDiffersError,
    FlowRunFailedError,
    FlowRunOutcomeUnknownError,
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
    """Return a function that makes a daily task of the table-based dataflow, which waits by default."""

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
    """Without `wait_for_completion`, the task ends when the flow run exists."""
    task = ingest(wait_for_completion=False)
    assert "success" == task.run().state
    [run] = runs_of()
    assert ("2026-01-09T00:00:00Z", "2026-01-10T00:00:00Z") == (run["window_start"], run["window_end"])
    assert run["id"] == task.xcoms["return_value"]
    assert ("created", []) == (task.xcoms["flow_run"]["status"], task.xcoms["flow_run"]["errors"])


@WAYS
def test_waits_until_the_run_has_ended(ingest, runs_of, deferrable):
    """The task succeeds when the flow run succeeds."""
    assert "success" == ingest(deferrable=deferrable).run().state
    assert ["success"] == [run["status"] for run in runs_of()]


@WAYS
def test_the_xcoms_are_the_same_in_every_way_of_waiting(ingest, runs_of, deferrable):
    """The XComs are `return_value`, `flow_run` with all keys, and the addresses of the links."""
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
            "updated_records": None,
            "skipped_records": None,
            "deleted_records": None,
            "failed_records_derived": False,
            "errors": [],
            "url": url,
            "batches": [],
        },
    }
    assert expected == task.xcoms


@pytest.mark.needs_airflow(3, 1, "tasks that end in the triggerer")
def test_a_success_ends_in_the_triggerer_without_a_second_worker(ingest):
    """A deferred success needs no second worker slot."""
    ended = ingest(deferrable=True).run()
    assert "TaskSuccessEvent" == type(ended.message).__name__


def test_a_task_with_outlets_resumes_on_a_worker(ingest):
    """Airflow sends asset events only from a worker, so a task with outlets ends there."""
    from airflow.sdk import Asset

    task = ingest(deferrable=True, outlets=[Asset("orders")])
    ended = task.run()
    assert ("SucceedTask", ["orders"]) == (
        type(ended.message).__name__,
        [outlet.name for outlet in ended.message.task_outlets],
    )
    assert "success" == task.xcoms["flow_run"]["status"]


def test_the_default_of_deferrable_is_airflows(ingest, monkeypatch):
    """Without `deferrable`, `[operators] default_deferrable` applies."""
    monkeypatch.setenv("AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE", "True")
    assert ingest(deferrable=None).operator.deferrable is True


@WAYS
def test_do_xcom_push_false_pushes_no_return_value(ingest, deferrable):
    """`do_xcom_push=False` applies to every way of waiting."""
    task = ingest(deferrable=deferrable, do_xcom_push=False)
    assert "success" == task.run().state
    assert "return_value" not in task.xcoms


def test_the_requested_window_is_reported_if_runs_show_none(ingest, emulator, runs_of):
    """If Flow Service shows no windows, the XCom has the requested window."""
    emulator.plan_fault(kind="*", action="hide_windows")
    task = ingest()
    task.run()
    assert "2026-01-09T00:00:00Z" == task.xcoms["flow_run"]["window_start"]


def test_one_log_line_for_each_change_of_status(ingest, emulator, each_read_takes, log):
    """The log has one line for each status, not for each poll."""
    each_read_takes(0.5)
    ingest(poll_interval=0.01).run()
    said = [line.split(" is ")[1].split()[0] for line in log() if "runs.watch" in line]
    assert said == list(dict.fromkeys(said))
    assert "success" == said[-1]
    assert emulator.ledger()["requests"]["GET /runs/{id}"] > len(said)


def test_the_log_has_window_run_and_page(ingest, runs_of, log):
    """The log has the window, the flow run and its page."""
    ingest().run()
    [run] = runs_of()
    text = "\n".join(log())
    assert f"Window {WINDOW} (86,400 seconds) of dataflow {FLOW}" in text
    assert f"Flow run {run['id']} created for window {WINDOW}: {PAGE}/{FLOW}/activity/{run['id']}" in text
    assert f"Flow run {run['id']} ended as success, window {WINDOW}, 1,440 records read" in text


def test_the_log_of_a_task_that_only_creates_states_that_it_did_not_wait(ingest, runs_of, log):
    """A success of such a task does not mean that the window is ingested, and its log states this."""
    ingest(wait_for_completion=False).run()
    [run] = runs_of()
    expected = (
        f"Flow run {run['id']} is created, and not ingested yet: this task does not wait for it. "
        "A FlowRunSensor, or wait_for_completion=True, waits"
    )
    assert expected in "\n".join(log())


def test_the_log_of_a_task_that_waits_does_not_mention_a_sensor(ingest, log):
    ingest().run()
    assert "does not wait" not in "\n".join(log())


# --- ends of flow runs ---


@WAYS
def test_a_failed_run_fails_the_task_with_the_errors_of_the_run(ingest, emulator, runs_of, deferrable):
    """The message has Adobe's errors; the fields have dataflow, flow run and window."""
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
    """A retry creates a second flow run of the same window, and reports it."""
    emulator.plan_outcome(status="failed")
    task = ingest(deferrable=deferrable)
    assert ["up_for_retry", "success"] == [task.run().state, task.run().state]
    assert [("failed", 0), ("success", 1440)] == [(run["status"], run["records"]) for run in runs_of()]
    assert runs_of()[1]["id"] == task.xcoms["return_value"]


@WAYS
def test_a_run_that_ends_without_a_status_creates_no_second_run(ingest, emulator, runs_of, deferrable):
    """The outcome is unknown: the task fails, and a retry reads the same flow run again."""
    emulator.plan_outcome(status="success", status_place="nowhere")
    task = ingest(deferrable=deferrable)
    ended = task.run()
    assert ("up_for_retry", FlowRunOutcomeUnknownError) == (ended.state, ended.error.__class__)
    assert "does not report whether it succeeded" in ended.error.message
    assert "ended_unclear" == task.xcoms["flow_run"]["status"]
    assert "up_for_retry" == task.run().state
    assert 1 == len(runs_of())


@WAYS
@pytest.mark.parametrize("place", ["state", "activities"])
def test_a_success_that_is_shown_elsewhere_is_a_success(ingest, emulator, deferrable, place):
    """Older documents show `state`; some runs show a status only in their activities."""
    emulator.plan_outcome(status="success", status_place=place)
    task = ingest(deferrable=deferrable)
    assert "success" == task.run().state
    assert "success" == task.xcoms["flow_run"]["status"]


@WAYS
def test_a_failed_run_names_the_cause_in_its_extensions(ingest, emulator, deferrable):
    """The useful sentence is not always in `errors`."""
    emulator.plan_outcome(
        status="failed",
        errors=[{"code": "CONNECTOR-1001-500", "message": "Error in copying."}],
        extension_errors=[{"code": "INGEST-1205-400", "description": "The field age does not exist."}],
        error_detail="Error in copying",
    )
    error = ingest(deferrable=deferrable).run().error
    expected = "CONNECTOR-1001-500: Error in copying.; INGEST-1205-400: The field age does not exist."
    assert f"the flow run ended as failed: {expected}" == error.message


@WAYS
def test_a_failed_attempt_calls_its_callback(ingest, supervisor, emulator, deferrable):
    """Airflow calls `on_retry_callback` after an attempt that is retried."""
    emulator.plan_outcome(status="failed")
    called = []
    ended = ingest(deferrable=deferrable, on_retry_callback=lambda context: called.append(context["ti"].task_id)).run()
    assert ("up_for_retry", ["task"], []) == (ended.state, called, supervisor.refused)


@WAYS
def test_a_failed_runs_summary_is_in_the_xcom(ingest, emulator, deferrable):
    """A callback or a later task can read the errors."""
    emulator.plan_outcome(status="failed", errors=[{"code": "CONNECTOR-1001-500", "message": "no copy"}])
    task = ingest(deferrable=deferrable)
    task.run()
    assert "failed" == task.xcoms["flow_run"]["status"]
    assert [{"code": "CONNECTOR-1001-500", "message": "no copy"}] == task.xcoms["flow_run"]["errors"]


@WAYS
def test_partial_success_is_a_success_with_failed_records(ingest, emulator, deferrable):
    """Failed records below Adobe's error threshold do not fail the task; the XCom has their number."""
    emulator.plan_outcome(status="partialSuccess", failed_records=5)
    task = ingest(deferrable=deferrable)
    assert "success" == task.run().state
    found = task.xcoms["flow_run"]
    assert ("partial_success", 1435, 5) == (found["status"], found["output_records"], found["failed_records"])


def test_errors_of_a_successful_run_are_logged(ingest, emulator, log):
    """The errors of a success are logged as warnings."""
    emulator.plan_outcome(status="success", errors=[{"code": "DCVS-1000-400", "message": "a value was refused"}])
    assert "success" == ingest().run().state
    assert any("reports DCVS-1000-400: a value was refused" in line and "[warning]" in line for line in log())


@WAYS
def test_a_success_without_records_is_a_success(ingest, emulator, deferrable):
    """A flow run with zero records has no output counts; they are unknown, not zero."""
    emulator.plan_outcome(status="success", records=0)
    task = ingest(deferrable=deferrable)
    assert "success" == task.run().state
    assert (0, None) == (task.xcoms["flow_run"]["input_records"], task.xcoms["flow_run"]["output_records"])


def test_an_unknown_status_is_waited_for_until_the_time_limit(ingest, each_read_takes, emulator, runs_of, log):
    """An unknown status is neither success nor failure; the log states it once."""
    emulator.plan_outcome(status="MELTED")
    each_read_takes(60.0)  # The first poll reads the status.
    ended = ingest(wait_timeout=1.0).run()
    [run] = runs_of()
    assert isinstance(ended.error, FlowRunTimeoutError)
    assert "the flow run has not ended within wait_timeout, 1 second; its last status is MELTED" == ended.error.message
    assert (FLOW, run["id"], WINDOW) == (ended.error.flow_id, ended.error.flow_run_id, ended.error.window)
    assert "waits for the same run" in ended.error.remedy
    assert 1 == sum("has the unknown status" in line for line in log())


@WAYS
def test_a_run_that_vanishes_ends_the_task_at_once(ingest, emulator, runs_of, deferrable):
    """A 404 after a successful read fails the task; no other flow run is created."""
    emulator.plan_outcome(vanish=True, run_s=3600)
    ended = ingest(deferrable=deferrable).run()
    [run] = runs_of()
    error = ended.error
    assert ("failed", True) == (ended.state, isinstance(error, FlowRunVanishedError))
    assert (FLOW, run["id"], WINDOW) == (error.flow_id, error.flow_run_id, error.window)
    assert (404, "FLOW-1101-404", True) == (error.http_status, error.code, bool(error.request_id))
    assert f"{PAGE}/{FLOW}/activity/{run['id']}" == error.url
    assert "check in Experience Platform whether the window is ingested" in error.remedy


def test_a_404_before_the_first_read_is_tolerated(ingest, emulator, log):
    """A new flow run may take minutes to appear."""
    emulator.plan_fault(kind="POST /runs", action="delay_runs", seconds=4)
    assert "success" == ingest().run().state
    assert 1 == sum("cannot be read yet" in line for line in log())


# --- deferring ---


def test_the_trigger_gets_the_shorter_of_the_two_time_limits(ingest):
    """Both `wait_timeout` and `execution_timeout` limit the time in the triggerer."""
    task = ingest(deferrable=True, wait_timeout=60, execution_timeout=timedelta(seconds=20))
    task.try_number = 1
    assert timedelta(seconds=20) == task.step().message.trigger_timeout


def test_a_killed_task_logs_that_the_run_continues(ingest, runs_of, log):
    """Adobe cannot cancel a flow run; the log has its page."""
    task = ingest(wait_for_completion=False)
    task.run()
    task.last.on_kill()
    [run] = runs_of()
    [line] = [line for line in log() if "Adobe cannot cancel" in line]
    assert f"flow run {run['id']}, so it continues; see {PAGE}/{FLOW}/activity/{run['id']}" in line


def test_a_killed_task_without_a_run_logs_nothing(ingest, log):
    """Without a flow run, no message is logged."""
    ingest().operator.on_kill()
    assert [] == [line for line in log() if "Adobe" in line]


# --- arguments ---


def test_the_template_fields_are_pinned():
    """The template fields are part of the public interface."""
    window = ("window_start", "window_end", "start_time")
    expected = ("flow_id", "flow_name", "delta_column", *window, "flowservice_conn_id")
    assert expected == OnDemandFlowRunOperator.template_fields


def test_templates_are_rendered_before_any_request(ingest, emulator, runs_of):
    """The dataflow and the delta column can come from the DAG run's conf."""
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
def test_the_delta_column_is_sent_as_a_mapping(ingest, emulator, runs_of, given, sent):
    """A name is sent as a mapping with a name."""
    ingest(delta_column=given, wait_for_completion=False).run()
    [run] = runs_of()
    assert sent == emulator.state.runs[run["id"]].params["deltaColumn"]


def test_a_delta_column_that_the_flow_has_is_not_sent_again(ingest, emulator, runs_of):
    """After the first flow run, the dataflow has the delta column."""
    emulator.add_flow(id=FLOW, kind="table", delta_column="updated_at")
    ingest(wait_for_completion=False).run()
    [run] = runs_of()
    assert "deltaColumn" not in emulator.state.runs[run["id"]].params


@pytest.mark.parametrize("key", ["timezone", "dateFormat"])
def test_another_format_of_the_delta_column_is_refused(ingest, emulator, runs_of, key):
    """The dataflow keeps its own format and time zone; another one raises the error of another name."""
    kept = {"name": "updated_at", "timezone": "UTC", "dateFormat": "yyyy-MM-dd HH:mm:ss"}
    emulator.add_flow(id=FLOW, kind="table", delta_column=kept)
    ended = ingest(delta_column={**kept, key: "other"}).run()
    assert isinstance(ended.error, DeltaColumnDiffersError)
    assert f"the {key} of delta_column is 'other', and the dataflow has {kept[key]!r} already" == ended.error.message
    assert [] == runs_of()


def test_a_file_based_flow_needs_no_delta_column(ingest, emulator, runs_of):
    """Files have timestamps, so a file-based dataflow needs no delta column."""
    assert "success" == ingest(flow_id=FILES, delta_column=None).run().state
    [run] = runs_of(FILES)
    assert {"startTime", "windowStartTime", "windowEndTime"} == set(emulator.state.runs[run["id"]].params)


def test_without_check_flow_the_dataflow_is_not_read(ingest, emulator):
    """`check_flow=False` omits the request and leaves the checks to Flow Service."""
    ingest(check_flow=False, wait_for_completion=False).run()
    assert "GET /flows/{id}" not in emulator.ledger()["requests"]


def test_the_dataflow_is_read_once_before_its_run_is_created(ingest, emulator):
    """The check before the creation needs one request."""
    ingest(wait_for_completion=False).run()
    assert 1 == emulator.ledger()["requests"]["GET /flows/{id}"]


@pytest.mark.parametrize("shift", [0, 3600])
def test_the_start_time_is_sent_as_given(ingest, emulator, runs_of, clock, shift):
    """`start_time` is sent as the start of the flow run."""
    start = int(clock()) + shift + 5
    ingest(start_time=str(start), wait_for_completion=False).run()
    [run] = runs_of()
    assert str(start) == emulator.state.runs[run["id"]].params["startTime"]


@pytest.mark.parametrize(("epoch_format", "kind"), [("string", str), ("integer", int)])
def test_times_are_sent_in_the_format_of_the_connection(ingest, connection, emulator, runs_of, epoch_format, kind):
    """Adobe's pages disagree about strings and integers; the connection's setting applies."""
    connection["extra"]["epoch_format"] = epoch_format
    ingest(wait_for_completion=False).run()
    [run] = runs_of()
    sent = emulator.state.runs[run["id"]].params
    assert {kind} == {type(sent[name]) for name in ("startTime", "windowStartTime", "windowEndTime")}
