"""Who says which window a run takes: its conf, its DAG's params, asset events, or its schedule, moved or extended."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from airflow.sdk import Asset, Param
from airflow_versions import AssetOrTimeSchedule, CronPartitionTimetable, CronTriggerTimetable

from airflow_flowservice.assets import flow_asset
from airflow_flowservice.exceptions import ConfigurationError, FlowRunActiveError, RunNotFoundError, WindowError
from airflow_flowservice.operators import OnDemandFlowRunOperator

FLOW = "3abea21c-7e36-4be1-bec1-d3bad0e3e0de"
DAY = timedelta(days=1)
ASKED = {"window_start": "2026-01-02T00:00:00Z", "window_end": "2026-01-02T06:00:00+00:00"}
TAKEN = ("2026-01-02T00:00:00Z", "2026-01-02T06:00:00Z")
YESTERDAY = ("2026-01-09T00:00:00Z", "2026-01-10T00:00:00Z")


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=timezone.utc)


def extra(*days: int, **more) -> list[dict]:
    """What our own task puts into an asset event, one for each day of January."""
    return [
        {**more, "window_start": f"2026-01-{d:02}T00:00:00Z", "window_end": f"2026-01-{d + 1:02}T00:00:00Z"}
        for d in days
    ]


@pytest.fixture
def task_of(worker):
    """A task that ingests."""

    def make(**arguments):
        return worker.task(OnDemandFlowRunOperator, flow_id=FLOW, delta_column="updated_at", **arguments)

    return make


@pytest.fixture
def window_of(task_of, runs_of):
    """The window of the one flow run that a task created."""

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
def test_a_manual_run_takes_the_window_in_its_conf(window_of, log, schedule, run_type):
    """Whatever the schedule, and with or without a logical date; the log says where the window comes from."""
    assert TAKEN == window_of(schedule=schedule, run_type=run_type, date=None, conf={**ASKED, "other": 1})
    [line] = [line for line in log() if "Window 2026" in line]
    assert "(21,600 seconds)" in line
    assert "window_start and window_end in the run's conf" in line


def test_a_manual_run_takes_the_window_in_its_dags_params(window_of, log):
    """As Airflow's form for manual runs fills them in."""
    params = {name: Param(value, type=["null", "string"], format="date-time") for name, value in ASKED.items()}
    assert TAKEN == window_of(run_type="manual", dag_settings={"params": params})
    assert any("window_start and window_end in the DAG's params" in line for line in log())


@pytest.mark.parametrize("empty", [None, ""])
def test_params_left_empty_ask_for_nothing(window_of, empty):
    """A form that was sent as it was means the run's own window."""
    params = dict.fromkeys(ASKED, empty)
    assert YESTERDAY == window_of(run_type="manual", dag_settings={"params": params}, conf=params)


@pytest.mark.parametrize("run_type", ["scheduled", "backfill"])
def test_defaults_of_params_are_not_for_the_schedules_own_runs(window_of, run_type):
    """Every one of them would ingest the same window."""
    assert YESTERDAY == window_of(run_type=run_type, dag_settings={"params": ASKED})


def test_a_conf_for_a_whole_backfill_is_refused(window_of, emulator):
    """All of its runs would ingest the same window."""
    with pytest.raises(WindowError, match="every run of this backfill") as caught:
        window_of(run_type="backfill", conf=ASKED)
    assert "--dag-run-conf" in caught.value.remedy
    assert {} == emulator.ledger()["requests"]


@pytest.mark.parametrize("name", ["window_start", "window_end"])
def test_half_a_window_in_the_conf_is_an_error(window_of, emulator, name):
    """Nobody can guess the other edge."""
    with pytest.raises(WindowError, match=f"the run's conf gives {name} alone"):
        window_of(run_type="manual", conf={name: ASKED[name]})
    assert {} == emulator.ledger()["requests"]


def test_an_unreadable_window_in_the_conf_names_it(window_of):
    """The message says where the bad value stands."""
    with pytest.raises(WindowError, match="window_end in the run's conf is 'soon'"):
        window_of(run_type="manual", conf={**ASKED, "window_end": "soon"})


def test_the_tasks_own_window_comes_first(window_of):
    """What the DAG's author wrote into the task is not overruled by a conf."""
    given = {"window_start": "2026-01-05T00:00:00Z", "window_end": "2026-01-05T01:00:00Z"}
    assert tuple(given.values()) == window_of(run_type="manual", conf=ASKED, **given)


def test_events_without_a_window_are_told(window_of, log):
    """Whatever made them, nothing of it is ingested, and nobody should have to guess that."""
    events = (*events_of("orders", *extra(2), {}), *events_of("prices", {"rows": 7}))
    window_of(schedule=[Asset("orders")], run_type="asset_triggered", date=None, events=events)
    assert any("Events of orders, prices carry no window and are left out of it" in line for line in log())


def events_of(asset: str, *extras: dict) -> tuple[tuple[str, dict], ...]:
    return tuple((asset, each) for each in extras)


@pytest.mark.parametrize(
    ("events", "end"),
    [
        pytest.param(events_of("orders", *extra(2)), 3, id="one"),
        pytest.param(events_of("orders", *extra(4, 2, 3)), 5, id="several that tile"),
        pytest.param(events_of("orders", *extra(2, 2)), 3, id="the same twice"),
        pytest.param(events_of("orders", *extra(2)) + events_of("lines", *extra(2)), 3, id="two assets, one window"),
        pytest.param(events_of("orders", *extra(2), {}, {"rows": 7}), 3, id="others carry none"),
    ],
)
def test_an_asset_triggered_run_takes_its_events_windows(window_of, log, events, end):
    """Our own tasks put the window into the event; several that tile are joined."""
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
        pytest.param(events_of("orders", *extra(2), dict(ASKED)), "overlap", id="an overlap"),
        pytest.param(events_of("orders", *extra(2, 3)) + events_of("lines", *extra(2)), "overlap", id="two assets"),
    ],
)
def test_events_that_do_not_tile_are_an_error(window_of, emulator, events, fault):
    """Joining them would leave something out, or take it twice."""
    with pytest.raises(WindowError, match=fault):
        window_of(schedule=[Asset("orders")], run_type="asset_triggered", date=None, events=events)
    assert {} == emulator.ledger()["requests"]


@pytest.mark.parametrize("deferrable", [True, False])
def test_outlets_carry_the_window(task_of, runs_of, deferrable):
    """The event of an outlet says what was ingested, so that a DAG on this asset takes the same window."""
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


def test_outlets_of_a_task_that_only_creates_carry_the_window(task_of):
    """The counts are not known yet."""
    [event] = task_of(outlets=[Asset("orders")]).run().message.outlet_events
    assert YESTERDAY == (event["extra"]["window_start"], event["extra"]["window_end"])
    assert "created" == event["extra"]["status"]
    assert "output_records" not in event["extra"]


def test_the_dataflows_own_asset_is_an_outlet_like_any_other(task_of):
    """Its event is found by its URI."""
    [event] = task_of(outlets=[flow_asset(FLOW)]).run().message.outlet_events
    uri = f"aep://prod/dataflows/{FLOW}"
    assert ({"name": uri, "uri": uri}, FLOW) == (event["dest_asset_key"], event["extra"]["flow_id"])


def test_an_outlet_may_refer_to_an_asset(task_of, supervisor):
    """Airflow knows which one it is."""
    uri = f"aep://prod/dataflows/{FLOW}"
    supervisor.assets[uri] = "orders"
    [event] = task_of(outlets=[Asset.ref(uri=uri)]).run().message.outlet_events
    assert ({"name": "orders", "uri": uri}, YESTERDAY[0]) == (event["dest_asset_key"], event["extra"]["window_start"])


def test_an_outlet_that_refers_to_no_asset_fails_no_task(task_of, log):
    """The flow run exists; the log says that the event carries no window."""
    assert "success" == task_of(outlets=[Asset.ref(name="nowhere")]).run().state
    assert any("carries no window" in line and "nowhere" in line for line in log())


def test_window_offset_moves_the_schedules_windows(window_of, log):
    """For data that arrives six hours late, the window lies six hours earlier."""
    late = ("2026-01-08T18:00:00Z", "2026-01-09T18:00:00Z")
    assert late == window_of(window_offset=timedelta(hours=-6))
    assert any("moved by window_offset -1 day, 18:00:00" in line for line in log())


def test_window_offset_leaves_alone_what_was_asked_for(window_of):
    """A window in the conf is taken as it is."""
    assert TAKEN == window_of(run_type="manual", conf=ASKED, window_offset=timedelta(hours=-6))


def test_a_window_in_the_future_is_refused_with_the_fitting_remedy(window_of, emulator):
    """It would be ingested in part, and never again; each cause has its own way out."""
    now = datetime.now(timezone.utc).replace(minute=0, second=0, microsecond=0)
    with pytest.raises(WindowError, match="ends in the future") as plain:
        window_of(schedule="@hourly", date=now + timedelta(hours=3))
    assert "wait until the window is over" in plain.value.remedy
    with pytest.raises(WindowError, match="ends in the future") as moved:
        window_of(schedule="@hourly", date=now, window_offset=timedelta(hours=2))
    assert "must be negative" in moved.value.remedy
    assert {} == emulator.ledger()["requests"]


@pytest.mark.needs_airflow(3, 2, "partitions")
def test_a_partition_in_the_future_is_refused_with_the_fitting_remedy(window_of, emulator):
    """Without `run_offset` a run is made when its partition only begins."""
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


@pytest.mark.parametrize("bad", [6, "6h", 3600.0])
def test_window_offset_is_a_timedelta(bad):
    """Seconds, hours? Nobody should have to guess; told when the DAG is parsed."""
    with pytest.raises(ConfigurationError, match="window_offset is"):
        OnDemandFlowRunOperator(task_id="ingest", flow_id=FLOW, window_offset=bad)


def test_window_is_one_of_two_words():
    """Told when the DAG is parsed."""
    with pytest.raises(ConfigurationError, match="window is 'everything'"):
        OnDemandFlowRunOperator(task_id="ingest", flow_id=FLOW, window="everything")


SHOWN = pytest.mark.needs_airflow(3, 3, "rendered templates that may be told again after an attempt that failed")


@SHOWN
def test_the_window_shows_among_the_rendered_templates(task_of, supervisor):
    """Whoever looks at the task in Airflow's UI sees which window it took."""
    task_of().run()
    assert YESTERDAY == (supervisor.rendered["window_start"], supervisor.rendered["window_end"])


@SHOWN
def test_the_window_still_shows_after_the_task_resumed_on_a_worker(task_of, supervisor):
    """The second process renders anew."""
    task_of(outlets=[Asset("orders")], wait_for_completion=True, deferrable=True, poll_interval=0.1).run()
    assert YESTERDAY == (supervisor.rendered["window_start"], supervisor.rendered["window_end"])


class Past:
    """The DAG runs before this one."""

    def __init__(self, supervisor, runs_of, create_run):
        self.supervisor, self.runs_of, self.create_run = supervisor, runs_of, create_run

    def run(self, day: int, *, state: str = "success", flow_run: dict | None = None, **fields) -> None:
        """A DAG run of a day of January, and the XCom `flow_run` of its task."""
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
        """The XCom of the daily window that ends at a day of January."""
        return {
            "id": flow_run_id,
            "status": status,
            "window_start": f"2026-01-{day - 1:02}T00:00:00Z",
            "window_end": f"2026-01-{day:02}T00:00:00Z",
            "url": None,
        }


@pytest.fixture
def past(supervisor, runs_of, create_run):
    return Past(supervisor, runs_of, create_run)


@pytest.fixture
def reaching(task_of, runs_of):
    """The newest flow run's window of a task with `since_last_success`."""

    def ingest(**arguments):
        task = task_of(window="since_last_success", dag_settings={"catchup": False}, **arguments)
        ended = task.run()
        if ended.error is not None:
            raise ended.error
        run = runs_of()[-1]
        return run["window_start"], run["window_end"]

    return ingest


def test_since_last_success_reaches_back(past, reaching, log):
    """After three days of pause the run takes what the schedule has left out; failed runs are passed by."""
    past.run(6, flow_run=past.summary(6))
    past.run(7, state="failed")
    assert ("2026-01-06T00:00:00Z", "2026-01-10T00:00:00Z") == reaching()
    assert any("the last success ended at 2026-01-06T00:00:00+00:00" in line for line in log())


def test_since_last_success_asks_flow_service_how_a_run_ended(past, reaching, create_run, clock):
    """A task that only creates does not know; nor does one that ran out of time."""
    clock.stop()  # The run must not end before it is read.
    created = create_run(date=utc(2026, 1, 7))
    past.run(6, flow_run=past.summary(6))
    past.run(7, state="failed", flow_run=past.summary(7, status="created", flow_run_id=created))
    with pytest.raises(FlowRunActiveError, match="an earlier flow run has not ended") as caught:
        reaching(task_id="task")
    assert created == caught.value.flow_run_id


def test_since_last_success_passes_by_a_failed_flow_run(past, reaching, create_run, emulator, wait_for_end):
    """Its window is not in."""
    emulator.plan_outcome(flow_id=FLOW, status="failed", times=1)
    created = create_run(date=utc(2026, 1, 7))
    wait_for_end(created)
    past.run(6, flow_run=past.summary(6))
    past.run(7, state="failed", flow_run=past.summary(7, status="created", flow_run_id=created))
    assert ("2026-01-06T00:00:00Z", "2026-01-10T00:00:00Z") == reaching()


def test_since_last_success_stops_at_a_flow_run_that_succeeded_after_all(past, reaching, create_run, wait_for_end):
    """The task ran out of time, and the run went on to its end: its window is in."""
    created = create_run(date=utc(2026, 1, 7))
    wait_for_end(created)
    past.run(6, flow_run=past.summary(6))
    past.run(7, state="failed", flow_run=past.summary(7, status="created", flow_run_id=created))
    assert ("2026-01-07T00:00:00Z", "2026-01-10T00:00:00Z") == reaching()


def test_since_last_success_does_not_guess_about_a_vanished_run(past, reaching, emulator):
    """Nobody can tell whether its window is in."""
    past.run(7, state="failed", flow_run=past.summary(7, status="created", flow_run_id=FLOW))
    with pytest.raises(RunNotFoundError):
        reaching()
    assert [] == emulator.ledger()["flows"][FLOW]["runs"]


def test_the_first_run_of_all_takes_its_period(reaching, log):
    """There is nothing to reach back to."""
    assert YESTERDAY == reaching()
    assert any("no earlier run has succeeded" in line for line in log())


def test_nothing_new_skips_the_task(past, task_of, emulator):
    """A second run within a period, say by hand, has nothing to ingest."""
    past.run(10, flow_run=past.summary(10))
    ended = task_of(window="since_last_success", run_type="manual", date=utc(2026, 1, 10, 15)).run()
    assert "skipped" == ended.state, ended
    assert [] == emulator.ledger()["flows"][FLOW]["runs"]


def test_since_last_success_is_refused_in_a_backfill(reaching, emulator):
    """Its runs come in any order."""
    with pytest.raises(WindowError, match="no meaning in a backfill") as caught:
        reaching(run_type="backfill")
    assert "window='period'" in caught.value.remedy
    assert {} == emulator.ledger()["requests"]


def test_since_last_success_needs_a_logical_date(reaching):
    """Runs without one have no place among the others."""
    with pytest.raises(WindowError, match="needs a run with a logical date"):
        reaching(run_type="manual", date=None)


def test_since_last_success_takes_a_window_that_was_asked_for(reaching):
    """Also in a run without a logical date."""
    assert TAKEN == reaching(run_type="manual", date=None, conf=ASKED)


def test_since_last_success_waits_for_a_dag_run_that_goes_on(past, reaching):
    """It has not created its flow run yet, and would reach back as far."""
    past.run(8, flow_run=past.summary(8))
    past.run(9, state="running")
    with pytest.raises(FlowRunActiveError, match="the earlier DAG run run_9 goes on"):
        reaching()


def test_since_last_success_sees_what_later_runs_have_ingested(past, reaching, create_run, wait_for_end):
    """A run that is cleared late finds its window inside the one of a run after it."""
    inside = {"window_start": "2026-01-08T00:00:00Z", "window_end": "2026-01-12T00:00:00Z"}
    created = create_run(**inside)
    wait_for_end(created)
    past.run(8, flow_run=past.summary(8))
    with pytest.raises(WindowError, match="has already ingested a part of this window") as caught:
        reaching()
    assert created == caught.value.flow_run_id
    assert "mark the task as success" in caught.value.remedy


@pytest.mark.needs_airflow(3, 3, "task state")
def test_a_retry_keeps_the_window_of_the_first_attempt(past, task_of, runs_of, emulator, wait_for_end):
    """In between, an earlier DAG run was repaired: another window would make a second flow run."""
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


def test_windows_left_out_are_warned_of(past, task_of, log):
    """The log names the time that no run has, and the command that fills it."""
    past.run(7)
    task_of(dag_settings={"catchup": False}).run()
    [line] = warnings_of(log)
    assert "no DAG run has the time from 2026-01-07T00:00:00+00:00 to 2026-01-09T00:00:00+00:00" in line
    assert "--from-date 2026-01-07T00:00:01+00:00 --to-date 2026-01-09T00:00:00+00:00" in line


def test_runs_that_follow_each_other_are_not_warned_of(past, task_of, log):
    """Nothing is missing, and a log that always warns is not read."""
    past.run(9)
    task_of(dag_settings={"catchup": False}).run()
    assert [] == warnings_of(log)


def test_the_first_run_of_a_dag_without_catchup_is_warned_of(task_of, log):
    """Once, since later runs can be looked at."""
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
    ids=["catchup", "a backfill", "by hand", "since_last_success"],
)
def test_other_runs_are_not_warned_of(task_of, log, arguments):
    """They leave nothing out."""
    task_of(**arguments).run()
    assert [] == warnings_of(log)


def test_an_interval_that_does_not_tile_is_warned_of(task_of, log):
    """A data interval of 24 hours overlaps on the day with 23, and leaves an hour out on the day with 25."""
    schedule = CronTriggerTimetable("0 0 * * *", timezone="Europe/Zurich", interval=DAY)
    start, end = utc(2026, 1, 8, 23), utc(2026, 1, 9, 23)
    task_of(schedule=schedule, date=start, interval=(start, end), dag_settings={"catchup": True}).run()
    [line] = warnings_of(log)
    year = datetime.now(timezone.utc).year
    assert f"{year}-03-" in line
    assert f"{year}-10-" in line
