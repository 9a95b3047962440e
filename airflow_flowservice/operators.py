"""Operators that create flow runs in Adobe Flow Service."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

from airflow_flowservice import _airflow, _windows
from airflow_flowservice._creating import CreatesFlowRun
from airflow_flowservice.exceptions import ConfigurationError, telling

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from airflow_flowservice.hooks import FlowServiceHook
    from airflow_flowservice.ingestion.intent import Order

_WINDOWS = ("period", "since_last_success")


class OnDemandFlowRunOperator(CreatesFlowRun):
    """Ingests the DAG run's window: creates a flow run, once, with Flow Service's `POST /runs`.

    The window is the DAG run's data interval; where Airflow leaves that empty (as for `schedule="@daily"`), it
    is the schedule's period that ends at the run's date. Manual runs take the last complete period, or
    what `window_start` and `window_end` in their conf, or in the DAG's params, say. Runs that assets triggered
    take the window that the assets' events carry.

    :param flow_id: the dataflow, scheduled one-time; templated.
    :param delta_column: for table-based sources, the column that tells new rows: its name, or
        `{"name", "dateFormat", "timezone"}`. Not sent when the dataflow has it already. Templated.
    :param window_start: instead of the DAG run's own; aware datetime, ISO 8601 with an offset or epoch
        seconds; with window_end. Templated.
    :param window_end: the window's end, exclusive; as window_start.
    :param window_offset: moves every DAG run's own window by so much; negative for data that arrives late. Windows
        that were asked for (arguments, conf, params, events) are taken as they are.
    :param window: `period`, the DAG run's own, or `since_last_success`: from where the last successful run's
        window ended, for DAGs with `catchup=False`. Refused in backfills.
    :param start_time: when the run begins, in the same forms; default: now. Templated.
    :param wait_for_completion: False creates only, and a `FlowRunSensor` waits; True waits in this task.
    :param deferrable: wait in the triggerer instead of on a worker; default: Airflow's
        `[operators] default_deferrable`.
    :param poll_interval: seconds between two looks at the run; the first ones come sooner.
    :param wait_timeout: seconds (or `timedelta`) after which waiting ends with `FlowRunTimeoutError`; the next
        attempt waits for the same run.
    :param error_budget: seconds (or `timedelta`) without one good answer after which waiting ends; until then
        nothing that a request meets (refused connections, 5xx, 429, an expired token) fails the task.
    :param max_failed_records: how many records may fail, in a `partialSuccess` or a success, before the task does;
        None: any number. Judged by the task that waits: where that is a `FlowRunSensor`, give it to the sensor.
    :param max_failed_ratio: which share of the records may fail, 0 to 1 (see `ingestion.judgement.failed_ratio`).
        Of a success that gives no count, none is taken to have failed; a `partialSuccess` without counts fails.
    :param on_empty: what a run without records makes of the task: `succeed`, `skip` or `fail`. Counts that Flow Service
        does not give are not zero.
    :param check_flow: read the dataflow before its run is created, and refuse with a remedy what cannot work.
    :param on_uncertain: when the answer to the POST was lost and new runs show no window: `fail` with the
        candidates, `adopt` the oldest of them, or `create` another.
    :param uncertain_patience: seconds to look for a run whose answer was lost, before another is created.
    :param flowservice_conn_id: the connection, of type `flowservice`.

    Returns the flow run's id, and pushes the XCom `flow_run` (see `ingestion.outcome.summary_of`).

    :raises WindowError: the DAG run has no window, or one that is not over; nothing is created.
    :raises RunRefusedError: Flow Service refused; nothing is created.
    :raises FlowRunFailedError: the run failed.
    :raises FlowRunIncompleteError: more records failed than the task allows; not retried, since the others are in.
    :raises FlowRunEmptyError: there were no records, and `on_empty` is `fail`; not retried.
    :raises FlowRunUncertainError: a run may exist, and nobody can tell.

    Source: https://experienceleague.adobe.com/en/docs/experience-platform/sources/api-tutorials/on-demand-ingestion
    """

    template_fields: Sequence[str] = ("flow_id", "delta_column", "window_start", "window_end", "start_time")

    def __init__(
        self,
        *,
        flow_id: str,
        delta_column: str | dict[str, str] | None = None,
        window_start: str | datetime | float | None = None,
        window_end: str | datetime | float | None = None,
        window_offset: timedelta | None = None,
        window: Literal["period", "since_last_success"] = "period",
        start_time: str | datetime | float | None = None,
        check_flow: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.flow_id = flow_id
        self.delta_column = delta_column
        self.window_start = window_start
        self.window_end = window_end
        self.window_offset = _offset(window_offset)
        self.window = window
        self.start_time = start_time
        self.check_flow = check_flow
        # A template that renders to a native None must not pass for one that was never given.
        self._given = {name for name in ("window_start", "window_end", "start_time") if getattr(self, name) is not None}
        if len(self._given & {"window_start", "window_end"}) == 1:
            raise ConfigurationError(
                f"only {next(iter(self._given - {'start_time'}))} is given",
                remedy="give window_start and window_end, or neither",
            )
        if window not in _WINDOWS:
            raise ConfigurationError(f"window is {window!r}", remedy=f"use one of {_WINDOWS}")

    def _order(self, context: Mapping[str, Any], hook: FlowServiceHook) -> Order:
        from airflow_flowservice.api.models import DeltaColumn
        from airflow_flowservice.ingestion.intent import Order
        from airflow_flowservice.ingestion.window import parse_instant

        if not self.flow_id or not isinstance(self.flow_id, str):
            raise ConfigurationError(
                f"flow_id is {self.flow_id!r}", remedy="set flow_id; if it is a template, check it"
            )
        with telling(flow_id=self.flow_id):
            choice = self._choose(context, hook)
        window = choice.window
        self.window_start, self.window_end = str(window).split("/")
        self.log.info(
            "Window %s (%s seconds) of dataflow %s: %s", window, f"{window.seconds:,}", self.flow_id, choice.source
        )
        with telling(flow_id=self.flow_id, window=str(window)):
            _windows.warn(choice, context, mode=self.window, offset=self.window_offset)
            window.require_past(
                now=_airflow.utc_now(),
                remedy=_windows.remedy_if_future(context["dag"].timetable, offset=self.window_offset)
                if choice.period
                else None,
            )
            return Order(
                flow_id=self.flow_id.strip(),
                window=window,
                start_time=parse_instant(self.start_time, name="start_time") if "start_time" in self._given else None,
                delta_column=None if self.delta_column is None else DeltaColumn.parse(self.delta_column),
            )

    def _choose(self, context: Mapping[str, Any], hook: FlowServiceHook) -> _windows.Choice:
        from airflow_flowservice.ingestion.window import IngestionWindow, parse_instant

        if "window_start" in self._given:
            window = IngestionWindow(
                parse_instant(self.window_start, name="window_start"), parse_instant(self.window_end, name="window_end")
            )
            return _windows.Choice(window=window, source="the task's window_start and window_end")
        choice = _windows.choose(context, offset=self.window_offset)
        if self.window == "period":
            return choice
        return _windows.reach_back(choice, context, flow_id=self.flow_id.strip(), service=hook.client)

    def _recall(self, summary: Mapping[str, Any]) -> None:
        self.window_start, self.window_end = summary["window_start"], summary["window_end"]

    def _prepare(self, order: Order, hook: FlowServiceHook) -> Order:
        from airflow_flowservice.ingestion.flow_check import checked

        return checked(order, hook.client.get_flow(order.flow_id)) if self.check_flow else order


class RetriggerFlowRunOperator(CreatesFlowRun):
    """Starts a flow run again with Flow Service's `POST /runs/{id}/action?op=re-trigger`, once.

    Adobe allows it for failed runs and for successes without records; the answer is a new run, which
    reads the original window again.

    :param flow_run_id: the run to repeat; templated.

    Waiting, what it tolerates, `on_uncertain`, result, XComs and errors are those of `OnDemandFlowRunOperator`.

    :raises RunNotFoundError: no such run.
    :raises RetriggerRefusedError: this run cannot be started again, or not yet.
    """

    template_fields: Sequence[str] = ("flow_run_id",)

    def __init__(self, *, flow_run_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.flow_run_id = flow_run_id

    def _order(self, context: Mapping[str, Any], hook: FlowServiceHook) -> Order:
        from airflow_flowservice.ingestion.intent import Order
        from airflow_flowservice.ingestion.window import IngestionWindow

        if not self.flow_run_id or not isinstance(self.flow_run_id, str):
            raise ConfigurationError(
                f"flow_run_id is {self.flow_run_id!r}", remedy="set flow_run_id; if it is a template, check it"
            )
        run = hook.client.get_run(self.flow_run_id)
        if run.flow_id is None:
            raise ConfigurationError("the flow run does not say which dataflow it is of", flow_run_id=run.id)
        window = None
        if run.window_start is not None and run.window_end is not None:
            window = IngestionWindow(run.window_start, run.window_end)
        return Order(flow_id=run.flow_id, window=window, retrigger=self.flow_run_id)


def _offset(offset: timedelta | None) -> timedelta | None:
    """Checked when the DAG is parsed; only a fixed length of time keeps the windows' seams together."""
    if offset is None or isinstance(offset, timedelta):
        return offset
    raise ConfigurationError(
        f"window_offset is {offset!r}", remedy="use a timedelta, such as timedelta(hours=-6) for data six hours late"
    )
