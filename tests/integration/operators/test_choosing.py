# SPDX-License-Identifier: Apache-2.0
"""Tests of the source of a run's window: conf, params, asset events, or the schedule, with or without changes."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from types import SimpleNamespace

import pendulum
import pytest
from airflow.sdk import Asset, Param
from airflow_versions import AssetOrTimeSchedule, CronPartitionTimetable, CronTriggerTimetable

from airflow_flowservice._airflow import choose_window
from airflow_flowservice.assets import flow_asset
from airflow_flowservice.exceptions import ConfigurationError, FlowRunActiveError, RunNotFoundError, WindowError
from airflow_flowservice.operators import OnDemandFlowRunOperator

FLOW = "3abea21c-7e36-4be1-bec1-d3bad0e3e0de"
DAY = timedelta(days=1)
REQUESTED = {"window_start": "2026-01-02T00:00:00Z", "window_end": "2026-01-02T06:00:00+00:00"}
REQUESTED_WINDOW = ("2026-01-02T00:00:00Z", "2026-01-02T06:00:00Z")
YESTERDAY = ("2026-01-09T00:00:00Z", "2026-01-10T00:00:00Z")


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=timezone.utc)


def extra(*days: int, **more) -> list[dict]:
    """Return the `extra` of the asset events of a task of this package, one for each day of January."""
    return [
        {**more, "window_start": f"2026-01-{d:02}T00:00:00Z", "window_end": f"2026-01-{d + 1:02}T00:00:00Z"}
        for d in days
    ]


@pytest.fixture
def task_of(worker):
    """Return a function that creates a task which ingests."""

    def make(**arguments):
        return worker.task(OnDemandFlowRunOperator, flow_id=FLOW, delta_column="updated_at", **arguments)

    return make


@pytest.fixture
def window_of(task_of, runs_of):
    """Return a function that runs a task and returns the window of its only flow run."""

    def ingest(**arguments):
        ended = task_of(**arguments).run()
        if ended.error is not None:
            raise ended.error
        [run] = runs_of()
        return run["window_start"], run["window_end"]

    return ingest


@pytest.mark.parametrize("schedule", ["@daily", None, [Asset("orders")], timedelta(hours=1)], ids=str)
@pytest.mark.parametrize(
    "run_type",
    [
        "manual",
        pytest.param("operator_triggered", marks=pytest.mark.needs_airflow(3, 3, "this type of DAG runs")),
    ],
)
def test_manual_run_uses_the_window_in_its_conf(window_of, log, schedule, run_type):
    """The schedule and the logical date do not matter, and the log states the source of the window."""
    assert REQUESTED_WINDOW == window_of(
        schedule=schedule, run_type=run_type, date=None, conf={**REQUESTED, "other": 1}
    )
    [line] = [line for line in log() if "Window 2026" in line]
    assert "(21,600 seconds)" in line
    assert "window_start and window_end in the run's conf" in line


def test_manual_run_uses_the_window_in_the_dags_params(window_of, log):
    """Airflow's form for manual runs sets these params."""
    params = {name: Param(value, type=["null", "string"], format="date-time") for name, value in REQUESTED.items()}
    assert REQUESTED_WINDOW == window_of(run_type="manual", dag_settings={"params": params})
    assert any("window_start and window_end in the DAG's params" in line for line in log())


@pytest.mark.parametrize("empty", [None, ""])
def test_empty_params_request_no_window(window_of, empty):
    """An unchanged form gives the run's period."""
    params = dict.fromkeys(REQUESTED, empty)
    assert YESTERDAY == window_of(run_type="manual", dag_settings={"params": params}, conf=params)


@pytest.mark.parametrize("run_type", ["scheduled", "backfill"])
def test_scheduled_runs_ignore_defaults_of_params(window_of, run_type):
    """Otherwise, all runs would ingest the same window."""
    assert YESTERDAY == window_of(run_type=run_type, dag_settings={"params": REQUESTED})


def test_window_in_the_conf_of_a_backfill_is_refused(window_of, emulator):
    """Otherwise, all runs would ingest the same window."""
    with pytest.raises(WindowError, match="every run of this backfill") as caught:
        window_of(run_type="backfill", conf=REQUESTED)
    assert "--dag-run-conf" in caught.value.remedy
    assert {} == emulator.ledger()["requests"]


@pytest.mark.parametrize(
    ("conf", "message"),
    [
        ({"windowStart": REQUESTED["window_start"], "windowEnd": REQUESTED["window_end"]}, "has the key 'windowStart'"),
        ({"window-start": REQUESTED["window_start"]}, "has the key 'window-start', which is not read as window_start"),
        ({"windowEndTime": 1767398400}, "has the key 'windowEndTime', which is not read as window_end"),
        ({"conf": REQUESTED}, "has a window inside the key 'conf'"),
        ({"flowservice": REQUESTED}, "has a window inside the key 'flowservice'"),
        ({"windows": [REQUESTED]}, "has a window inside the key 'windows'"),
        ({"a": {"b": [{"c": REQUESTED}]}}, "has a window inside the key 'a'"),
    ],
    ids=str,
)
@pytest.mark.parametrize("run_type", ["manual", "backfill"])
def test_window_under_another_key_of_the_conf_is_an_error(window_of, emulator, conf, message, run_type):
    """If it were ignored, the task would ingest the last complete period instead."""
    with pytest.raises(WindowError, match=message) as caught:
        window_of(run_type=run_type, conf=conf)
    assert "window_start and window_end" in caught.value.remedy
    assert {} == emulator.ledger()["requests"]


START, END = REQUESTED["window_start"], REQUESTED["window_end"]


def key_names(value) -> str:
    """Return the id of a parameter: a conf by its keys, without the times."""
    return ",".join(value) if isinstance(value, dict) else str(value)


@pytest.mark.parametrize(
    ("conf", "message"),
    [
        ({"window": f"{START}/{END}"}, "has a time in the key 'window'"),
        ({"window": [START, END]}, "has a time in the key 'window'"),
        ({"window": {"start": START, "end": END}}, "has a time in the key 'window'"),
        ({"window_from": START, "window_to": END}, "has a time in the key 'window_from'"),
        ({"window_star": START}, "has a time in the key 'window_star'"),
        ({"widnow_start": START}, "has a time in the key 'widnow_start'"),
        ({"start": START, "end": END}, "has times in the keys 'start' and 'end'"),
        ({"start_date": "2026-01-02", "endDate": "2026-01-03"}, "has times in the keys 'start_date' and 'endDate'"),
        ({"data_interval_start": START, "data_interval_end": END}, "'data_interval_start' and 'data_interval_end'"),
        ({"logical_start_date": START, "logical_end_date": END}, "'logical_start_date' and 'logical_end_date'"),
        ({"from": 1767312000, "to": 1767398400}, "has numbers that can be times in the keys 'from' and 'to'"),
        ({"start": "20260102", "end": 20260103}, "has numbers that can be times in the keys 'start' and 'end'"),
        ({"start": "202601020000", "end": "202601030000"}, "has numbers that can be times in the keys"),
        ({"window": 1767312000000}, "has a number that can be a time in the key 'window'"),
    ],
    ids=key_names,
)
def test_times_in_a_conf_without_a_window_are_an_error(window_of, emulator, conf, message):
    """A user who triggers a DAG run with these times expects that the task ingests them."""
    with pytest.raises(WindowError, match=message) as caught:
        window_of(run_type="manual", conf=conf)
    assert "window_start and window_end" in caught.value.remedy
    assert {} == emulator.ledger()["requests"]
    assert REQUESTED_WINDOW == window_of(run_type="manual", conf={**conf, **REQUESTED})


@pytest.mark.parametrize(
    "conf",
    [
        {"logical_date": "2026-01-02T00:00:00+00:00"},
        {"execution_date": "2026-01-02"},
        {"ds": "2026-01-02"},
        {"logicalDate": 1767312000},
        {"ds_nodash": "20260102"},
        {"ts": "2026-01-02T00:00:00"},
        {"logical_date": "2026-01-10T06:00:00"},
    ],
    ids=key_names,
)
def test_another_logical_date_in_the_conf_is_an_error(window_of, emulator, conf):
    """Airflow does not read the logical date from the conf, so the task would ingest another period."""
    for date in (utc(2026, 1, 10), None):
        with pytest.raises(WindowError, match="the run's conf has the") as caught:
            window_of(run_type="manual", date=date, conf=conf)
        assert "--logical-date" in caught.value.remedy
    assert {} == emulator.ledger()["requests"]
    assert REQUESTED_WINDOW == window_of(run_type="manual", conf={**conf, **REQUESTED})


@pytest.mark.parametrize(
    "conf",
    [
        {"logical_date": "2026-01-10T00:00:00+00:00", "ds": "2026-01-10", "ds_nodash": "20260110"},
        {"execution_date": "2026-01-10T01:00:00+01:00"},
        {"logical_date": "2026-01-10T00:00:00", "ts": "2026-01-10 00:00:00.000"},
        {"ds": None, "logical_date": "", "execution_date": "latest"},
    ],
    ids=key_names,
)
def test_the_logical_date_of_the_run_in_the_conf_is_accepted(window_of, conf):
    """For example, `TriggerDagRunOperator` passes the same date in both ways."""
    assert YESTERDAY == window_of(run_type="manual", conf=conf)


@pytest.mark.parametrize("run_type", ["scheduled", "backfill"])
def test_other_times_in_the_conf_of_an_automatic_run_are_ignored(window_of, run_type):
    """A backfill cannot have a window in its conf, so its runs could not tell the task to ignore other times."""
    assert YESTERDAY == window_of(run_type=run_type, conf={"start": START, "end": END, "window": START})


def test_window_under_another_key_of_the_params_is_an_error(window_of, emulator):
    with pytest.raises(WindowError, match="the DAG's params has the key 'windowStart'"):
        window_of(run_type="manual", dag_settings={"params": {"windowStart": START, "windowEnd": END}})
    assert {} == emulator.ledger()["requests"]


@pytest.mark.parametrize(
    "conf",
    [
        {"windowStart": None, "windowEnd": ""},
        {"window": "7d", "start": "x", "a": {}},
        {"start": START, "end": None, "from": "a", "to": "b", "windows": 3, "maintenance_window": ["sunday"]},
        {"start": 1, "end": 500, "from": "20009999", "to": "20019999", "since": 20_000_000, "until": 30_000_000},
        {"start_date": START, "end": END, "order": 1767312000, "rows": [1, "2026-01-02"]},
    ],
    ids=key_names,
)
def test_other_keys_of_the_conf_are_ignored(window_of, conf):
    """A conf may have keys for other tasks, and empty fields of Airflow's form."""
    assert YESTERDAY == window_of(run_type="manual", conf=conf)


@pytest.mark.needs_airflow(3, 2, "partitions")
def test_partition_key_without_a_date_is_an_error():
    """A worker of Airflow 3.2 receives only the key of a manual run, which names another period than the last one."""
    run = SimpleNamespace(
        run_type="manual",
        run_after=utc(2026, 1, 10),
        logical_date=None,
        data_interval_start=None,
        data_interval_end=None,
        partition_date=None,
        partition_key="2026-01-05T00:00:00",
        conf={},
    )
    timetable = CronPartitionTimetable("@daily", timezone="UTC", run_offset=-1)
    with pytest.raises(WindowError, match="partition key '2026-01-05T00:00:00'") as caught:
        choose_window.choose({"dag_run": run, "dag": SimpleNamespace(timetable=timetable)})
    assert "window_start and window_end in its conf" in caught.value.remedy
    run.partition_date = utc(2026, 1, 5)
    chosen = choose_window.choose({"dag_run": run, "dag": SimpleNamespace(timetable=timetable)})
    assert "2026-01-05T00:00:00Z/2026-01-06T00:00:00Z" == str(chosen.window)


@pytest.mark.parametrize("name", ["window_start", "window_end"])
def test_one_edge_in_the_conf_is_an_error(window_of, emulator, name):
    """The other edge is not known."""
    with pytest.raises(WindowError, match=f"the run's conf gives only {name}"):
        window_of(run_type="manual", conf={name: REQUESTED[name]})
    assert {} == emulator.ledger()["requests"]


def test_error_for_an_unreadable_window_names_the_conf(window_of):
    """The message states the location of the wrong value."""
    with pytest.raises(WindowError, match="window_end in the run's conf is 'soon'"):
        window_of(run_type="manual", conf={**REQUESTED, "window_end": "soon"})


def test_window_of_the_task_has_priority_over_the_conf(window_of):
    """A conf does not override the arguments in the DAG file."""
    given = {"window_start": "2026-01-05T00:00:00Z", "window_end": "2026-01-05T01:00:00Z"}
    assert tuple(given.values()) == window_of(run_type="manual", conf=REQUESTED, **given)


def test_events_without_a_window_log_a_warning(window_of, log):
    """The data of these events is not ingested."""
    events = (*events_of("orders", *extra(2), {}), *events_of("prices", {"rows": 7}))
    window_of(schedule=[Asset("orders")], run_type="asset_triggered", date=None, events=events)
    assert any("Events of orders, prices contain no window and are ignored" in line for line in log())


def events_of(asset: str, *extras: dict) -> tuple[tuple[str, dict], ...]:
    return tuple((asset, each) for each in extras)


@pytest.mark.parametrize(
    ("events", "end"),
    [
        pytest.param(events_of("orders", *extra(2)), 3, id="one"),
        pytest.param(events_of("orders", *extra(4, 2, 3)), 5, id="several contiguous"),
        pytest.param(events_of("orders", *extra(2, 2)), 3, id="duplicates"),
        pytest.param(events_of("orders", {"from_trigger": True, "payload": extra(2)[0]}), 3, id="watcher"),
        pytest.param(events_of("orders", *extra(2)) + events_of("lines", *extra(2)), 3, id="two assets, one window"),
        pytest.param(events_of("orders", *extra(2), {}, {"rows": 7}), 3, id="some events contain no window"),
    ],
)
def test_asset_triggered_run_uses_the_windows_of_its_events(window_of, log, events, end):
    """Tasks of this package put the window into the event. Contiguous windows are merged."""
    expected = ("2026-01-02T00:00:00Z", f"2026-01-{end:02}T00:00:00Z")
    schedule = AssetOrTimeSchedule(
        timetable=CronTriggerTimetable("0 0 * * *", timezone="UTC"), assets=[Asset("orders")]
    )
    assert expected == window_of(schedule=schedule, run_type="asset_triggered", date=None, events=events)
    assert any("the events of the assets that triggered the run" in line for line in log())


@pytest.mark.parametrize(
    ("events", "fault"),
    [
        pytest.param(events_of("orders", *extra(2, 4)), "leave a gap", id="a gap"),
        pytest.param(events_of("orders", *extra(2), dict(REQUESTED)), "overlap", id="an overlap"),
        pytest.param(events_of("orders", *extra(2, 3)) + events_of("lines", *extra(2)), "overlap", id="two assets"),
    ],
)
def test_events_that_are_not_contiguous_are_an_error(window_of, emulator, events, fault):
    """A merged window would contain data of no event, or duplicate data."""
    with pytest.raises(WindowError, match=fault):
        window_of(schedule=[Asset("orders")], run_type="asset_triggered", date=None, events=events)
    assert {} == emulator.ledger()["requests"]


@pytest.mark.parametrize("deferrable", [True, False])
def test_outlet_events_contain_the_window(task_of, runs_of, deferrable):
    """A DAG that is scheduled on the asset uses the window in the event."""
    ended = task_of(outlets=[Asset("orders")], wait_for_completion=True, deferrable=deferrable, poll_interval=0.1).run()
    [run] = runs_of()
    [event] = ended.message.outlet_events
    assert {"name": "orders", "uri": "orders"} == event["dest_asset_key"]
    assert "success" == ended.state
    expected = {
        "flow_id": FLOW,
        "flow_run_id": run["id"],
        "status": "success",
        "window_start": YESTERDAY[0],
        "window_end": YESTERDAY[1],
        "output_records": 1440,
    }
    assert expected == {name: event["extra"].get(name) for name in expected}


def test_outlet_events_of_a_task_that_only_creates_contain_the_window(task_of):
    """The counts are not known at this time."""
    [event] = task_of(outlets=[Asset("orders")]).run().message.outlet_events
    assert YESTERDAY == (event["extra"]["window_start"], event["extra"]["window_end"])
    assert "created" == event["extra"]["status"]
    assert "output_records" not in event["extra"]


def test_asset_of_the_dataflow_can_be_an_outlet(task_of):
    """The event has the asset's URI."""
    [event] = task_of(outlets=[flow_asset(FLOW)]).run().message.outlet_events
    uri = f"aep://prod/dataflows/{FLOW}"
    assert ({"name": uri, "uri": uri}, FLOW) == (event["dest_asset_key"], event["extra"]["flow_id"])


def test_outlet_may_be_a_reference_to_an_asset(task_of, supervisor):
    """Airflow resolves the reference."""
    uri = f"aep://prod/dataflows/{FLOW}"
    supervisor.assets[uri] = "orders"
    [event] = task_of(outlets=[Asset.ref(uri=uri)]).run().message.outlet_events
    assert ({"name": "orders", "uri": uri}, YESTERDAY[0]) == (event["dest_asset_key"], event["extra"]["window_start"])


def test_outlet_with_an_unknown_reference_does_not_fail_the_task(task_of, log):
    """The flow run exists, and the log states that the event has no window."""
    assert "success" == task_of(outlets=[Asset.ref(name="nowhere")]).run().state
    assert any("has no window" in line and "nowhere" in line for line in log())


def test_window_offset_moves_the_windows_of_the_schedule(window_of, log):
    """If data arrives six hours late, the window can be six hours earlier."""
    late = ("2026-01-08T18:00:00Z", "2026-01-09T18:00:00Z")
    assert late == window_of(window_offset=timedelta(hours=-6))
    assert any("moved by window_offset -1 day, 18:00:00" in line for line in log())


def test_window_offset_does_not_move_a_requested_window(window_of):
    """A window in the conf is used unchanged."""
    assert REQUESTED_WINDOW == window_of(run_type="manual", conf=REQUESTED, window_offset=timedelta(hours=-6))


@pytest.mark.parametrize(
    ("end", "is_warned"),
    [("2026-01-02T23:59:59Z", True), ("2026-01-02T23:59:59.999999+05:30", True), ("2026-01-03T00:00:00Z", False)],
)
@pytest.mark.parametrize("source", ["arguments", "conf"])
def test_end_at_the_last_second_logs_a_warning(window_of, log, source, end, is_warned):
    """The end is exclusive, so the last second of each day would be missing."""
    requested = {"window_start": "2026-01-02T00:00:00+05:30", "window_end": end}
    window_of(**(requested if source == "arguments" else {"conf": requested, "run_type": "manual"}))
    assert is_warned == any("data of this second is not ingested" in line for line in log())


def test_window_in_the_future_is_refused_with_a_specific_remedy(window_of, emulator):
    """Its data would be ingested only in part. The remedy depends on the cause."""
    now = datetime.now(timezone.utc).replace(minute=0, second=0, microsecond=0)
    with pytest.raises(WindowError, match="ends in the future") as plain:
        window_of(schedule="@hourly", date=now + timedelta(hours=3))
    assert "wait until the window has ended" in plain.value.remedy
    with pytest.raises(WindowError, match="ends in the future") as moved:
        window_of(schedule="@hourly", date=now, window_offset=timedelta(hours=2))
    assert "must be negative" in moved.value.remedy
    assert {} == emulator.ledger()["requests"]


@pytest.mark.needs_airflow(3, 2, "partitions")
def test_partition_in_the_future_is_refused_with_a_specific_remedy(window_of, emulator):
    """Without `run_offset`, Airflow creates a run when its partition begins."""
    now = datetime.now(timezone.utc).replace(minute=0, second=0, microsecond=0)
    with pytest.raises(WindowError, match="ends in the future") as partition:
        window_of(
            schedule=CronPartitionTimetable("0 0 * * *", timezone="UTC"),
            date=None,
            run_after=now.replace(hour=0),
            partition_date=now.replace(hour=0),
        )
    assert "set run_offset=-1 in CronPartitionTimetable (it is 0)" in partition.value.remedy
    assert {} == emulator.ledger()["requests"]


@pytest.mark.parametrize("bad", [6, "6h", 3600.0, pendulum.duration(months=-1), pendulum.duration(years=1, hours=1)])
def test_window_offset_is_a_timedelta(bad):
    """The unit of a number would be unclear. The error is raised when the DAG is parsed."""
    with pytest.raises(ConfigurationError, match="window_offset is"):
        OnDemandFlowRunOperator(task_id="ingest", flow_id=FLOW, window_offset=bad)


def test_window_is_one_of_two_values():
    """The error is raised when the DAG is parsed."""
    with pytest.raises(ConfigurationError, match="window is 'everything'"):
        OnDemandFlowRunOperator(task_id="ingest", flow_id=FLOW, window="everything")


SHOWN = pytest.mark.needs_airflow(3, 3, "rendered fields that can be updated after a failed attempt")


@SHOWN
def test_window_is_shown_in_the_rendered_templates(task_of, supervisor):
    """Airflow's UI shows the window of the task."""
    task_of().run()
    assert YESTERDAY == (supervisor.rendered["window_start"], supervisor.rendered["window_end"])


@SHOWN
def test_window_is_shown_in_the_rendered_templates_after_a_deferral(task_of, supervisor):
    """The second process renders the templates again."""
    task_of(outlets=[Asset("orders")], wait_for_completion=True, deferrable=True, poll_interval=0.1).run()
    assert YESTERDAY == (supervisor.rendered["window_start"], supervisor.rendered["window_end"])


class EarlierRuns:
    """The DAG runs before the current one."""

    def __init__(self, supervisor, runs_of, create_run):
        self.supervisor, self.runs_of, self.create_run = supervisor, runs_of, create_run

    def run(self, day: int, *, state: str = "success", flow_run: dict | None = None, **fields) -> None:
        """Add a DAG run of a day of January, with the XCom `flow_run` of its task."""
        date = utc(2026, 1, day)
        run = {
            "run_id": f"run_{day}",
            "logical_date": date,
            "data_interval_start": date,
            "data_interval_end": date,
            "run_after": date,
            "run_type": "scheduled",
            "state": state,
            "consumed_asset_events": [],
            "start_date": date,
            "end_date": None,
            "partition_key": None,
            **fields,
        }
        self.supervisor.earlier_runs.append(run)
        if flow_run is not None:
            self.supervisor.earlier_xcoms[f"run_{day}", "task", "flow_run"] = flow_run

    def summary(self, day: int, *, status: str = "success", flow_run_id: str = "gone") -> dict:
        """Return the XCom `flow_run` of the daily window that ends at a day of January."""
        return {
            "id": flow_run_id,
            "status": status,
            "window_start": f"2026-01-{day - 1:02}T00:00:00Z",
            "window_end": f"2026-01-{day:02}T00:00:00Z",
            "url": None,
        }


@pytest.fixture
def past(supervisor, runs_of, create_run):
    return EarlierRuns(supervisor, runs_of, create_run)


@pytest.fixture
def window_since_last_success(task_of, runs_of):
    """Return a function that runs a task with `since_last_success` and returns the window of its newest flow run."""

    def ingest(**arguments):
        task = task_of(window="since_last_success", dag_settings={"catchup": False}, **arguments)
        ended = task.run()
        if ended.error is not None:
            raise ended.error
        run = runs_of()[-1]
        return run["window_start"], run["window_end"]

    return ingest


def test_since_last_success_begins_at_the_last_success(past, window_since_last_success, log):
    """After three days of pause, the window contains the missing days. Failed runs are skipped."""
    past.run(6, flow_run=past.summary(6))
    past.run(7, state="failed")
    assert ("2026-01-06T00:00:00Z", "2026-01-10T00:00:00Z") == window_since_last_success()
    assert any("the last success ended at 2026-01-06T00:00:00+00:00" in line for line in log())


def test_since_last_success_reads_the_status_of_a_flow_run(past, window_since_last_success, create_run, clock):
    """A task that only creates, or that reached its time limit, has not stored the final status."""
    clock.stop()  # the flow run must not end before the task reads its status
    created = create_run(date=utc(2026, 1, 7))
    past.run(6, flow_run=past.summary(6))
    past.run(7, state="failed", flow_run=past.summary(7, status="created", flow_run_id=created))
    with pytest.raises(FlowRunActiveError, match="an earlier flow run has not ended") as caught:
        window_since_last_success(task_id="task")
    assert created == caught.value.flow_run_id


def test_since_last_success_skips_a_failed_flow_run(
    past, window_since_last_success, create_run, emulator, wait_for_end
):
    """Its window is not ingested."""
    emulator.plan_outcome(flow_id=FLOW, status="failed", times=1)
    created = create_run(date=utc(2026, 1, 7))
    wait_for_end(created)
    past.run(6, flow_run=past.summary(6))
    past.run(7, state="failed", flow_run=past.summary(7, status="created", flow_run_id=created))
    assert ("2026-01-06T00:00:00Z", "2026-01-10T00:00:00Z") == window_since_last_success()


def test_since_last_success_begins_at_a_flow_run_that_succeeded_after_its_task(
    past, window_since_last_success, create_run, wait_for_end
):
    """The task reached its time limit, then the flow run succeeded: its window is ingested."""
    created = create_run(date=utc(2026, 1, 7))
    wait_for_end(created)
    past.run(6, flow_run=past.summary(6))
    past.run(7, state="failed", flow_run=past.summary(7, status="created", flow_run_id=created))
    assert ("2026-01-07T00:00:00Z", "2026-01-10T00:00:00Z") == window_since_last_success()


def test_since_last_success_fails_if_a_flow_run_is_not_found(past, window_since_last_success, emulator):
    """The window of this flow run may be ingested or not."""
    past.run(7, state="failed", flow_run=past.summary(7, status="created", flow_run_id=FLOW))
    with pytest.raises(RunNotFoundError):
        window_since_last_success()
    assert [] == emulator.ledger()["flows"][FLOW]["runs"]


def test_first_run_with_since_last_success_uses_its_period(window_since_last_success, log):
    """There is no earlier success."""
    assert YESTERDAY == window_since_last_success()
    assert any("no earlier run has succeeded" in line for line in log())


def test_no_new_data_skips_the_task(past, task_of, emulator):
    """A second run within a period, for example a manual one, has no data to ingest."""
    past.run(10, flow_run=past.summary(10))
    ended = task_of(window="since_last_success", run_type="manual", date=utc(2026, 1, 10, 15)).run()
    assert "skipped" == ended.state, ended
    assert [] == emulator.ledger()["flows"][FLOW]["runs"]


def test_since_last_success_is_refused_in_a_backfill(window_since_last_success, emulator):
    """The runs of a backfill have no fixed order."""
    with pytest.raises(WindowError, match="not possible in a backfill") as caught:
        window_since_last_success(run_type="backfill")
    assert "window='period'" in caught.value.remedy
    assert {} == emulator.ledger()["requests"]


def test_since_last_success_needs_a_logical_date(window_since_last_success):
    """Runs without a logical date have no order."""
    with pytest.raises(WindowError, match="needs a run with a logical date"):
        window_since_last_success(run_type="manual", date=None)


def test_since_last_success_uses_a_requested_window(window_since_last_success):
    """The run needs no logical date."""
    assert REQUESTED_WINDOW == window_since_last_success(run_type="manual", date=None, conf=REQUESTED)


def test_since_last_success_fails_while_an_earlier_dag_run_is_active(past, window_since_last_success):
    """The earlier run has not created its flow run, whose window would overlap."""
    past.run(8, flow_run=past.summary(8))
    past.run(9, state="running")
    with pytest.raises(FlowRunActiveError, match="the earlier DAG run run_9 has not ended"):
        window_since_last_success()


def test_since_last_success_is_refused_if_a_later_run_ingested_the_window(
    past, window_since_last_success, create_run, wait_for_end
):
    """If a run is cleared later, the window of a following run may contain its window."""
    inside = {"window_start": "2026-01-08T00:00:00Z", "window_end": "2026-01-12T00:00:00Z"}
    created = create_run(**inside)
    wait_for_end(created)
    past.run(8, flow_run=past.summary(8))
    with pytest.raises(WindowError, match="has already ingested a part of this window") as caught:
        window_since_last_success()
    assert created == caught.value.flow_run_id
    assert "mark the task as success" in caught.value.remedy


@pytest.mark.needs_airflow(3, 3, "task state")
def test_retry_keeps_the_window_of_the_first_attempt(past, task_of, runs_of, emulator, wait_for_end):
    """An earlier DAG run succeeded between the attempts: another window would create a second flow run."""
    past.run(6, flow_run=past.summary(6))
    emulator.plan_outcome(flow_id=FLOW, status="failed", times=1)
    task = task_of(
        window="since_last_success", retries=1, wait_for_completion=True, deferrable=False, poll_interval=0.1
    )
    assert "up_for_retry" == task.run().state
    past.run(9, flow_run=past.summary(9))
    assert "success" == task.run().state
    wide = ("2026-01-06T00:00:00Z", "2026-01-10T00:00:00Z")
    assert [wide, wide] == [(run["window_start"], run["window_end"]) for run in runs_of()]


def warnings_of(log) -> list[str]:
    return [
        line
        for line in log()
        if line.startswith("[warning]") and "[airflow_flowservice._airflow.choose_window]" in line
    ]


def test_missing_windows_log_a_warning(past, task_of, log):
    """The warning names the gap, and the command that fills it."""
    past.run(7)
    task_of(dag_settings={"catchup": False}).run()
    [line] = warnings_of(log)
    assert "no DAG run has the time from 2026-01-07T00:00:00+00:00 to 2026-01-09T00:00:00+00:00" in line
    assert "--from-date 2026-01-07T00:00:01+00:00 --to-date 2026-01-09T00:00:00+00:00" in line


def test_consecutive_runs_log_no_warning(past, task_of, log):
    """No window is missing."""
    past.run(9)
    task_of(dag_settings={"catchup": False}).run()
    assert [] == warnings_of(log)


def test_first_run_without_catchup_logs_a_warning(task_of, log):
    """Later runs are compared with the run before them."""
    task_of(dag_settings={"catchup": False}).run()
    [line] = warnings_of(log)
    assert "while this DAG is paused" in line
    assert "since_last_success" in line


@pytest.mark.parametrize(
    "arguments",
    [
        {"dag_settings": {"catchup": True}},
        {"dag_settings": {"catchup": False}, "run_type": "backfill"},
        {"dag_settings": {"catchup": False}, "run_type": "manual"},
        {"dag_settings": {"catchup": False}, "window": "since_last_success"},
    ],
    ids=["catchup", "a backfill", "manual", "since_last_success"],
)
def test_other_runs_log_no_warning(task_of, log, arguments):
    """These runs leave no gap."""
    task_of(**arguments).run()
    assert [] == warnings_of(log)


@pytest.fixture
def interval_warnings(past, task_of, log):
    """Run a task of a daily schedule in Zurich with a fixed data interval, and return the warnings in its log."""

    def warnings(*, interval, end, previous_end=None, **arguments):
        if previous_end is not None:
            edges = {"data_interval_start": previous_end - interval, "data_interval_end": previous_end}
            past.run(1, run_id="previous", logical_date=previous_end - interval, **edges)
        schedule = CronTriggerTimetable("0 0 * * *", timezone="Europe/Zurich", interval=interval)
        edges = (end - interval, end)
        arguments = {"dag_settings": {"catchup": True}, "schedule": schedule, "interval": edges, **arguments}
        assert "success" == task_of(date=edges[0], **arguments).run().state
        return warnings_of(log)

    return warnings


@pytest.mark.parametrize(
    ("interval", "end", "previous_end", "fault", "previous", "current"),
    [
        pytest.param(
            DAY,
            utc(2025, 10, 26, 23),
            utc(2025, 10, 25, 22),
            "leave a gap of 1 h",
            "2025-10-24T22:00:00Z/2025-10-25T22:00:00Z",
            "2025-10-25T23:00:00Z/2025-10-26T23:00:00Z",
            id="a day of 25 hours",
        ),
        pytest.param(
            DAY,
            utc(2026, 3, 29, 22),
            utc(2026, 3, 28, 23),
            "overlap by 1 h",
            "2026-03-27T23:00:00Z/2026-03-28T23:00:00Z",
            "2026-03-28T22:00:00Z/2026-03-29T22:00:00Z",
            id="a day of 23 hours",
        ),
        pytest.param(
            timedelta(hours=6),
            utc(2026, 1, 9, 23),
            utc(2026, 1, 8, 23),
            "leave a gap of 18 h",
            "2026-01-08T17:00:00Z/2026-01-08T23:00:00Z",
            "2026-01-09T17:00:00Z/2026-01-09T23:00:00Z",
            id="a short interval",
        ),
    ],
)
@pytest.mark.parametrize("catchup", [True, False])
def test_data_intervals_with_a_gap_or_overlap_log_a_warning(
    interval_warnings, interval, end, previous_end, fault, previous, current, catchup
):
    """The warning names both DAG runs' data intervals, the length, and the remedy."""
    [line] = interval_warnings(interval=interval, end=end, previous_end=previous_end, dag_settings={"catchup": catchup})
    assert f"CronTriggerTimetable(interval={interval}): " in line
    assert f"two consecutive DAG runs {fault}." in line
    assert f"Run previous has {previous}, and this run has {current}." in line
    assert "Remove the interval from the timetable" in line


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param({"previous_end": utc(2026, 1, 8, 23)}, id="contiguous"),
        pytest.param({}, id="no previous DAG run"),
        pytest.param({"previous_end": utc(2026, 1, 5, 23)}, id="DAG runs are missing between the two"),
        pytest.param({"previous_end": utc(2026, 1, 8, 23), "interval": 2 * DAY, "run_type": "manual"}, id="manual"),
    ],
)
def test_other_data_intervals_log_no_warning(interval_warnings, arguments):
    assert [] == interval_warnings(**{"interval": DAY, "end": utc(2026, 1, 9, 23), **arguments})


def test_error_while_reading_the_previous_run_does_not_fail_the_task(interval_warnings, monkeypatch):
    """The warning is missing, and the task succeeds."""

    def broken(_context):
        raise RuntimeError("no supervisor")

    monkeypatch.setattr("airflow_flowservice._airflow.task_context.earlier_runs", broken)
    assert [] == interval_warnings(interval=DAY, end=utc(2026, 3, 29, 22), previous_end=utc(2026, 3, 28, 23))
