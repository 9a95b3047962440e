# SPDX-License-Identifier: Apache-2.0
"""Run `airflow flowservice fill` on Airflow's own tables, with Airflow's own functions."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from airflow_flowservice._airflow import fill_actions, versions
from airflow_flowservice.cli import fill_runner
from tests.dag_history import delete_history
from tests.integration.coverage.conftest import BEGIN, DAY, FLOW, ran, summary

__all__ = ["ran"]
RANGE = ("--dag-id", "fill_daily", "--from", "2026-01-01", "--to", "2026-01-08")
DAG_FILE = f'''
from datetime import datetime, timedelta, timezone
from airflow.sdk import DAG
from airflow_flowservice.operators import OnDemandFlowRunOperator

with DAG("fill_daily", schedule="@daily", start_date=datetime(2026, 1, 1, tzinfo=timezone.utc), catchup=False):
    OnDemandFlowRunOperator(task_id="ingest", flow_id="{FLOW}")

with DAG("fill_ordered", schedule="@daily", start_date=datetime(2026, 1, 1, tzinfo=timezone.utc), catchup=False):
    OnDemandFlowRunOperator(task_id="ingest", flow_id="{FLOW}", depends_on_past=True)
'''


@pytest.fixture(scope="module")
def _stored_dag(airflow_db: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Store the DAG as the DAG processor does, and delete it afterwards."""
    from airflow.api.common.delete_dag import delete_dag
    from airflow.models.dagbundle import DagBundleModel
    from airflow.utils.session import create_session
    from sqlalchemy import delete

    folder: Path = tmp_path_factory.mktemp("dags")
    (folder / "fill_daily.py").write_text(DAG_FILE)
    bag = versions.dag_bag(str(folder))
    assert {} == bag.import_errors
    with create_session() as session:
        session.merge(DagBundleModel(name="fill"))
        session.commit()
        if hasattr(bag, "sync_to_db"):  # before 3.2
            bag.sync_to_db("fill", None, session=session)
        else:
            from airflow.dag_processing.dagbag import sync_bag_to_db

            sync_bag_to_db(bag, "fill", None, session=session)
    yield
    delete_dag("fill_daily")
    delete_dag("fill_ordered")
    with create_session() as session:
        session.execute(delete(DagBundleModel).where(DagBundleModel.name == "fill"))


@pytest.fixture
def session(_stored_dag: None) -> Iterator[Any]:
    """Open a session of the metadata database that the command reads, and empty the tables afterwards."""
    from airflow.models.backfill import Backfill, BackfillDagRun
    from airflow.models.dagrun import DagRun
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session

    with create_session() as opened:
        yield opened
    with create_session() as cleaning:
        delete_history(cleaning, XComModel, TaskInstance, BackfillDagRun, DagRun, Backfill)


@pytest.fixture
def seven_days(ran: Callable[..., str], session: Any) -> None:
    """Add 1, 6 and 7 January as ingested and 2 as failed; 3, 4 and 5 have no DAG run."""
    for day in (1, 6, 7):
        start = BEGIN + (day - 1) * DAY
        ran(start + DAY, dag_id="fill_daily", pushed=summary(day, start))
    ran(BEGIN + 2 * DAY, dag_id="fill_daily", state="failed", run_state="failed")
    session.commit()


def dag_runs(session: Any) -> dict[str, tuple[str, str]]:
    """Return the type and state of each DAG run."""
    from airflow.models.dagrun import DagRun
    from sqlalchemy import select

    session.expire_all()
    rows = session.execute(select(DagRun.run_id, DagRun.run_type, DagRun.state).where(DagRun.dag_id == "fill_daily"))
    return {run_id: (str(getattr(kind, "value", kind)), str(state)) for run_id, kind, state in rows}


def backfills(session: Any) -> list[Any]:
    from airflow.models.backfill import Backfill
    from sqlalchemy import select

    session.expire_all()
    return list(session.scalars(select(Backfill).order_by(Backfill.id)))


def complete(session: Any) -> None:
    """Complete the active backfill, as the scheduler does."""
    for each in backfills(session):
        each.completed_at = datetime.now(timezone.utc)
    session.commit()


@pytest.mark.usefixtures("seven_days")
def test_dry_run_shows_each_dag_run_and_changes_nothing(session: Any, command: Any) -> None:
    """The exit status is 1, because there is something to fill."""
    before = dag_runs(session)
    shown = command("fill", *RANGE, "--dry-run")
    assert 1 == shown.status
    lines = [line for line in shown.out.splitlines() if "2026-01-0" in line and "|" in line]
    assert 4 == len(lines)
    assert "all tasks of DAG run scheduled__2026-01-03T00:00:00+00:00" in lines[0]
    assert all("new DAG run" in line for line in lines[1:])
    assert 'POST /api/v2/backfills {"dag_id": "fill_daily"' in shown.out
    assert "This would create 3 DAG runs and run 1 again." in shown.out
    assert (before, []) == (dag_runs(session), backfills(session))


@pytest.mark.usefixtures("seven_days")
@pytest.mark.slow
def test_fill_creates_exactly_the_open_windows_once(session: Any, command: Any) -> None:
    """A second fill while the first is active creates nothing."""
    shown = command("fill", *RANGE, "--yes", "--output=json")
    assert (0, 4, 4) == (shown.status, shown.json["dag_runs"], shown.json["filled"])
    runs = dag_runs(session)
    assert {("backfill", "queued")} == {value for key, value in runs.items() if "01-03" in key or "01-04" in key}
    assert 4 == list(runs.values()).count(("backfill", "queued"))
    (backfill,) = backfills(session)
    assert ("failed", BEGIN + 2 * DAY, BEGIN + 5 * DAY) == (
        backfill.reprocess_behavior,
        backfill.from_date,
        backfill.to_date,
    )
    again = command("fill", *RANGE, "--yes")
    assert (0, runs, 1) == (again.status, dag_runs(session), len(backfills(session)))
    assert "There is no gap to fill." in again.out


@pytest.mark.usefixtures("seven_days")
@pytest.mark.parametrize(("typed", "status", "created"), [("4\n", 0, 1), ("yes\n", 1, 0), ("", 1, 0)])
def test_typed_number_confirms_the_fill(
    session: Any, command: Any, monkeypatch: pytest.MonkeyPatch, typed: str, status: int, created: int
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    shown = command("fill", *RANGE)
    assert (status, created) == (shown.status, len(backfills(session)))
    assert "Type 4 to continue: " in shown.err


@pytest.mark.slow
def test_ranges_wait_for_each_other(
    session: Any, ran: Callable[..., str], command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow allows one active backfill of a DAG; the second range starts when the first has ended."""
    for day in (1, 3, 5, 6, 7):
        start = BEGIN + (day - 1) * DAY
        ran(start + DAY, dag_id="fill_daily", pushed=summary(day, start))
    session.commit()
    waits = []

    def sleep(seconds: float) -> None:
        waits.append(len(backfills(session)))
        complete(session)

    monkeypatch.setattr(
        fill_runner.FillRunner.__init__,
        "__kwdefaults__",
        {**fill_runner.FillRunner.__init__.__kwdefaults__, "sleep": sleep},
    )
    shown = command("fill", *RANGE, "--yes")
    assert (0, [1], 2) == (shown.status, waits, len(backfills(session)))
    assert "waiting for backfill" in shown.err
    assert "0 of 1 DAG runs have ended" in shown.err
    assert "2 of 2 DAG runs were created or run again." in shown.out


@pytest.mark.usefixtures("seven_days")
@pytest.mark.slow
def test_windows_filled_meanwhile_are_omitted(
    session: Any, ran: Callable[..., str], command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the confirmation, the plan is read again."""

    class Stdin(io.StringIO):
        def readline(self, *_: Any) -> str:
            ran(BEGIN + 3 * DAY, dag_id="fill_daily", pushed=summary(3, BEGIN + 2 * DAY))
            session.commit()
            return "4\n"

    monkeypatch.setattr("sys.stdin", Stdin())
    monkeypatch.setattr(fill_actions, "active_backfill", lambda session, dag_id: None)
    calls = []
    monkeypatch.setattr(fill_actions, "create_backfill", lambda step, **_: not calls.append(step))
    shown = command("fill", *RANGE)
    assert {BEGIN + 2 * DAY, BEGIN + 4 * DAY, BEGIN + 5 * DAY} == {each.date for step in calls for each in step.windows}
    assert "1 windows were no longer open" in shown.err


def test_only_the_failed_task_of_a_shared_dag_run_is_cleared(
    session: Any, ran: Callable[..., str], command: Any
) -> None:
    """The task that succeeded does not ingest its window a second time."""
    from airflow.models.taskinstance import TaskInstance
    from sqlalchemy import select

    for day in range(1, 8):
        start = BEGIN + (day - 1) * DAY
        state = "failed" if day == 2 else "success"
        pushed = None if day == 2 else summary(day, start)
        ran(start + DAY, dag_id="fill_daily", pushed=pushed, state=state, run_state=state)
        other = summary(10 + day, start, flow_id="3abea21c-7e36-4be1-bec1-d3bad0e3e0de")
        ran(start + DAY, dag_id="fill_daily", task_id="other", pushed=other)
    session.commit()
    shown = command("fill", *RANGE, "--flow-id", FLOW, "--yes", "--output=json")
    assert (0, ["clear"]) == (shown.status, [step["action"] for step in shown.json["steps"]])
    session.expire_all()
    rows = session.execute(select(TaskInstance.task_id, TaskInstance.run_id, TaskInstance.state)).all()
    assert [("ingest", "scheduled__2026-01-03T00:00:00+00:00")] == [row[:2] for row in rows if row.state is None]
    assert [] == backfills(session)


@pytest.mark.usefixtures("seven_days")
def test_chunks_are_dag_runs_by_hand(session: Any, command: Any) -> None:
    """Coverage shows their windows as running, and a second fill creates nothing."""
    shown = command("fill", *RANGE, "--chunk", "3d", "--yes", "--output=json")
    ids = [request["body"]["dag_run_id"] for step in shown.json["steps"] for request in step["requests"]]
    expected = [
        "flowservice_fill__2026-01-02T00:00:00Z__2026-01-05T00:00:00Z",
        "flowservice_fill__2026-01-05T00:00:00Z__2026-01-06T00:00:00Z",
    ]
    assert (0, expected) == (shown.status, ids)
    runs = dag_runs(session)
    assert [("manual", "queued")] * 2 == [runs[run_id] for run_id in expected]
    again = command("fill", *RANGE, "--chunk", "2d", "--yes")
    assert (0, runs) == (again.status, dag_runs(session))
    document = command("coverage", *RANGE, "--output=json").json
    assert {"ingested", "running"} == {span["state"] for span in document["spans"]}


def test_many_flow_runs_warn_of_the_guardrail(session: Any, command: Any) -> None:
    """90 Profile batches a day are Adobe's guardrail; chunks are the remedy."""
    dates = ("--dag-id", "fill_daily", "--flow-id", FLOW, "--from", "2026-01-01", "--to", "2026-05-01", "--dry-run")
    shown = command("fill", *dates, "--output=json")
    assert (1, 120) == (shown.status, shown.json["dag_runs"])
    assert "90 batches a day" in shown.err
    assert "--chunk 1mo" in shown.err
    chunked = command("fill", *dates, "--output=json", "--chunk", "1mo")
    assert (1, 4, "1mo") == (chunked.status, chunked.json["dag_runs"], chunked.json["chunk"])
    assert "batches" not in chunked.err
    days = command("fill", *dates, "--output=json", "--chunk", "1d")
    assert (1, 120) == (days.status, days.json["dag_runs"])
    assert "90 batches a day" in days.err
    assert "A longer --chunk needs fewer" in days.err


def test_ordered_windows_are_filled(session: Any, command: Any) -> None:
    """Airflow refuses a backfill of a DAG with `depends_on_past` without `--reprocess-behavior`."""
    dates = ("--dag-id", "fill_ordered", "--from", "2026-01-01", "--to", "2026-01-04")
    document = command("coverage", *dates, "--output=json").json
    assert [True] == ["--reprocess-behavior failed" in each for each in document["fill"]]
    filled = command("fill", *dates, "--yes", "--output=json")
    assert (0, 3, 3) == (filled.status, filled.json["dag_runs"], filled.json["filled"])
    (backfill,) = backfills(session)
    assert ("fill_ordered", "failed") == (backfill.dag_id, backfill.reprocess_behavior)
    assert "failed" == filled.json["steps"][0]["requests"][0]["body"]["reprocess_behavior"]


@pytest.mark.usefixtures("seven_days")
def test_restate_needs_its_own_confirmation(session: Any, command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only ingested windows are ingested again, with the key `restate` in the conf."""
    refused = command("fill", *RANGE, "--restate", "--yes")
    assert (2, []) == (refused.status, backfills(session))
    assert "--confirm-restate N" in refused.err
    monkeypatch.setattr("sys.stdin", io.StringIO("3\n"))
    typed = command("fill", *RANGE, "--restate")
    assert (1, []) == (typed.status, backfills(session))
    assert "Type restate 3 to ingest the windows again: " in typed.err
    wrong = command("fill", *RANGE, "--restate", "--confirm-restate", "4")
    assert (1, []) == (wrong.status, backfills(session))
    monkeypatch.setattr(
        fill_runner.FillRunner.__init__,
        "__kwdefaults__",
        {**fill_runner.FillRunner.__init__.__kwdefaults__, "sleep": lambda _: complete(session)},
    )
    shown = command("fill", *RANGE, "--restate", "--confirm-restate", "3", "--output=json")
    assert (0, 3) == (shown.status, shown.json["filled"])
    confs = [each.dag_run_conf for each in backfills(session)]
    assert [{"flowservice": {"restate": [FLOW]}}] * 2 == confs
    assert ["completed"] * 2 == [each.reprocess_behavior for each in backfills(session)]


@pytest.mark.usefixtures("seven_days")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--chunk", "5y"], "give a number and h, d, w or mo"),
        (["--output", "json"], "cannot ask for confirmation"),
        (["--confirm-restate", "3"], "confirms only --restate"),
        (["--restate", "--include-unknown", "--confirm-restate", "3"], "omit --include-unknown"),
    ],
    ids=["chunk", "document", "confirmation", "unknown"],
)
def test_invalid_options_create_nothing(session: Any, command: Any, options: list[str], message: str) -> None:
    shown = command("fill", *RANGE, *options)
    assert (2, "", []) == (shown.status, shown.out, backfills(session))
    assert message in shown.err


@pytest.mark.parametrize("number", ["0", "-1", "many"])
def test_number_of_active_dag_runs_is_positive(command: Any, number: str) -> None:
    """The DAG runs of a backfill with zero would never start."""
    shown = command("fill", *RANGE, "--yes", "--max-active-runs", number)
    assert 2 == shown.status
    assert "--max-active-runs" in shown.err


@pytest.mark.usefixtures("seven_days")
def test_conf_of_a_dag_run_that_runs_again_is_kept(session: Any, command: Any) -> None:
    """From 3.2 on, a backfill with a conf would replace it. The scheduler creates the DAG runs of earlier versions."""
    from airflow.models.dagrun import DagRun
    from sqlalchemy import update

    failed = DagRun.state == "failed"
    session.execute(update(DagRun).where(DagRun.dag_id == "fill_daily", failed).values(conf={"kept": 1}))
    session.commit()
    assert 0 == command("fill", *RANGE, "--yes").status
    session.expire_all()
    confs = [run.conf for run in session.query(DagRun).where(DagRun.dag_id == "fill_daily")]
    assert 1 == confs.count({"kept": 1})


def test_unknown_dag(session: Any, command: Any) -> None:
    shown = command("fill", "--dag-id", "nope", *RANGE[2:])
    assert 2 == shown.status
    assert "Airflow's database has no DAG 'nope'" in shown.err


def test_range_without_windows(session: Any, command: Any) -> None:
    shown = command("fill", *RANGE[:2], "--flow-id", FLOW, "--from", "2025-01-01", "--to", "2025-02-01", "--yes")
    assert (2, "") == (shown.status, shown.out)
    assert "DAG 'fill_daily' has no window in 2025-01-01T00:00:00Z" in shown.err


@pytest.mark.usefixtures("seven_days")
def test_flow_runs_without_a_window_are_noted(ran: Callable[..., str], session: Any, command: Any) -> None:
    """Each may have ingested a window that would be filled."""
    unplaced = {**summary(99, BEGIN), "window_start": None, "window_end": None}
    ran(BEGIN + 5 * DAY + timedelta(hours=1), dag_id="fill_daily", run_type="manual", pushed=unplaced)
    session.commit()
    shown = command("fill", *RANGE, "--dry-run", "--output=json")
    assert (1, 1) == (shown.status, shown.json["unplaced"])
    assert "1 flow runs have no known window" in shown.err


@pytest.mark.usefixtures("seven_days")
def test_paused_dag_is_noted(session: Any, command: Any) -> None:
    """Its DAG runs stay queued."""
    from airflow.models.dag import DagModel
    from sqlalchemy import update

    notes = []
    for paused in (True, False):
        session.execute(update(DagModel).where(DagModel.dag_id == "fill_daily").values(is_paused=paused))
        session.commit()
        shown = command("fill", *RANGE, "--dry-run", "--output=json")
        assert paused is shown.json["paused"]
        notes.append("is paused" in shown.err)
    assert [True, False] == notes


@pytest.mark.usefixtures("seven_days")
def test_interrupted_fill_states_the_remedy(session: Any, command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(step: Any, **_: Any) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(fill_actions, "create_backfill", interrupt)
    shown = command("fill", *RANGE, "--yes")
    assert (130, []) == (shown.status, backfills(session))
    assert "the same command continues" in shown.err


@pytest.mark.usefixtures("seven_days")
def test_refusal_of_airflow_is_reported(session: Any, command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The exit status is 1, and the error has Airflow's reason."""
    from airflow.models import backfill

    def refuse(**_: Any) -> None:
        raise ValueError("no backfills\x1b today")

    monkeypatch.setattr(backfill, "_create_backfill", lambda dag_id, **_: refuse())
    shown = command("fill", *RANGE, "--yes")
    assert 1 == shown.status
    assert "no backfills� today" in shown.err


@pytest.mark.usefixtures("seven_days")
def test_unreadable_ledger_fills_nothing(session: Any, command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the ledger, no window is known to be missing."""
    from airflow_flowservice._airflow import dataflow_ledger
    from airflow_flowservice.coverage.ledger_runs import LedgerRecords

    monkeypatch.setattr(dataflow_ledger, "read_records", lambda *_, **__: LedgerRecords(error="no database"))
    shown = command("fill", *RANGE, "--yes")
    assert (2, []) == (shown.status, backfills(session))
    assert "the ledger cannot be read" in shown.err


@pytest.mark.usefixtures("seven_days")
@pytest.mark.slow
def test_documents_are_equal(command: Any) -> None:
    """`--output yaml` prints the same values as `--output json`."""
    import yaml

    options = ("fill", *RANGE, "--dry-run", "--output")
    assert json.loads(command(*options, "json").out) == yaml.safe_load(command(*options, "yaml").out)
