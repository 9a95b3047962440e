"""Operators that create flow runs in Adobe Flow Service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NoReturn

from airflow.sdk import BaseOperator

from airflow_flowservice import _airflow, _waiting
from airflow_flowservice.exceptions import ConfigurationError
from airflow_flowservice.links import FlowRunLink

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime, timedelta

    from airflow.sdk import Context

    from airflow_flowservice.hooks import FlowServiceHook
    from airflow_flowservice.ingestion.intent import Order
    from airflow_flowservice.ingestion.window import IngestionWindow

_ON_UNCERTAIN = ("fail", "adopt", "create")


class _CreatesFlowRun(BaseOperator):
    """Creates one flow run whatever fails, and waits for it if it is asked to."""

    operator_extra_links = (FlowRunLink(),)
    ui_color = "#fbe4e2"

    def __init__(
        self,
        *,
        wait_for_completion: bool = False,
        deferrable: bool | None = None,
        poll_interval: float = 30.0,
        wait_timeout: float | timedelta | None = None,
        on_uncertain: Literal["fail", "adopt", "create"] = "fail",
        uncertain_patience: float = 180.0,
        flowservice_conn_id: str = "flowservice_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if on_uncertain not in _ON_UNCERTAIN:
            raise ConfigurationError(f"on_uncertain is {on_uncertain!r}", remedy=f"use one of {_ON_UNCERTAIN}")
        self.wait_for_completion = wait_for_completion
        self.deferrable = _airflow.default_deferrable() if deferrable is None else deferrable
        self.poll_interval = _waiting.positive_seconds(poll_interval, name="poll_interval")
        self.wait_timeout = (
            None if wait_timeout is None else _waiting.positive_seconds(wait_timeout, name="wait_timeout")
        )
        self.on_uncertain = on_uncertain
        self.uncertain_patience = _waiting.positive_seconds(uncertain_patience, name="uncertain_patience")
        self.flowservice_conn_id = flowservice_conn_id
        self._flow_run: dict[str, Any] | None = None
        self.flow_run_url: str | None = None
        self.was_deferred = False

    def execute(self, context: Context) -> str:
        """Create the run, or find the one of an earlier attempt; then wait if asked to. The run's id."""
        with _airflow.task_errors():
            hook = self._hook()
            summary = self._create(context, hook, self._order(context, hook))
            if not self.wait_for_completion:
                return str(summary["id"])
            if self.deferrable:
                self._defer(context, summary)
            return self._wait(context, hook, summary)

    def execute_complete(self, context: Context, event: Any) -> str:
        """End the task with what the trigger saw. The run's id.

        :raises FlowRunFailedError: the run failed.
        """
        with _airflow.task_errors():
            return _waiting.finish(self, context, _waiting.summary_from_event(context, event))

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """As `BaseOperator.resume_execution`; a trigger that ran out of time becomes `FlowRunTimeoutError`."""
        self.was_deferred = True
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except _airflow.airflow_exception("TaskDeferralTimeout") as error:
            raise _waiting.timed_out(context, "its time limit") from error

    def on_kill(self) -> None:
        """Say that the run goes on; Adobe cannot cancel it."""
        if self._flow_run:
            self.log.warning(
                "Adobe cannot cancel flow run %s, so it goes on; see %s. The next attempt waits for it.",
                self._flow_run["id"],
                self._flow_run["url"],
            )

    def _order(self, context: Mapping[str, Any], hook: FlowServiceHook) -> Order:
        raise NotImplementedError  # pragma: no cover

    def _prepare(self, order: Order, hook: FlowServiceHook) -> Order:
        """A last look before anything is created."""
        return order

    def _hook(self) -> FlowServiceHook:
        from airflow_flowservice.hooks import FlowServiceHook

        return FlowServiceHook(self.flowservice_conn_id)

    def _create(self, context: Mapping[str, Any], hook: FlowServiceHook, order: Order) -> dict[str, Any]:
        from airflow_flowservice.ingestion.create_once import CreateOnce
        from airflow_flowservice.ingestion.outcome import summary_of_new

        def url(flow_run_id: str) -> str:
            return hook.run_url(flow_id=order.flow_id, flow_run_id=flow_run_id)

        create_once = CreateOnce(
            service=hook.client,
            store=_airflow.state_store(context),
            attempt=_airflow.attempt_of(context),
            on_uncertain=self.on_uncertain,
            patience=self.uncertain_patience,
            clock_offset=lambda: hook.client.clock_offset,
            prepare=lambda order: self._prepare(order, hook),
            link=url,
        )
        outcome = create_once(order)
        summary = summary_of_new(
            flow_run_id=outcome.flow_run_id,
            flow_id=order.flow_id,
            window=order.window,
            url=url(outcome.flow_run_id),
        )
        self.log.info("Flow run %s %s for window %s: %s", summary["id"], outcome.how, order.window, summary["url"])
        self._flow_run = summary
        _waiting.show(self, context, summary)
        return summary

    def _defer(self, context: Mapping[str, Any], summary: dict[str, Any]) -> NoReturn:
        from datetime import timedelta

        from airflow_flowservice.ingestion.outcome import window_text
        from airflow_flowservice.triggers import FlowRunTrigger

        _waiting.push_return_value(self, context, summary["id"])
        limits = [timedelta(seconds=self.wait_timeout)] if self.wait_timeout else []
        if self.execution_timeout:
            limits.append(self.execution_timeout)
        self.defer(
            trigger=FlowRunTrigger(
                flow_run_id=summary["id"],
                flowservice_conn_id=self.flowservice_conn_id,
                poll_interval=self.poll_interval,
                flow_id=summary["flow_id"],
                window=window_text(summary),
                url=summary["url"],
                ends_task=_airflow.ends_in_triggerer(self),
            ),
            method_name="execute_complete",
            timeout=min(limits, default=None),
        )

    def _wait(self, context: Mapping[str, Any], hook: FlowServiceHook, summary: dict[str, Any]) -> str:
        from airflow_flowservice.ingestion.outcome import summary_of
        from airflow_flowservice.ingestion.polling import RunWatch, wait_for_end

        watch = RunWatch(
            flow_run_id=summary["id"], poll_interval=self.poll_interval, timeout=self.wait_timeout, url=summary["url"]
        )
        try:
            run = wait_for_end(watch, hook.client.get_run)
        except _airflow.airflow_exception("AirflowTaskTimeout") as error:
            raise watch.timed_out("the task's execution_timeout") from error
        asked = {name: summary[name] for name in ("flow_id", "window_start", "window_end")}
        return _waiting.finish(self, context, {**summary_of(run, url=summary["url"]), **asked})


class OnDemandFlowRunOperator(_CreatesFlowRun):
    """Ingests the DAG run's window: creates a flow run, once, with Flow Service's `POST /runs`.

    The window is the DAG run's data interval; where Airflow leaves that empty (as for `schedule="@daily"`), it
    is the schedule's period that ends at the run's date. Manual runs take the last complete period.

    :param flow_id: the dataflow, scheduled one-time; templated.
    :param delta_column: for table-based sources, the column that tells new rows: its name, or
        `{"name", "dateFormat", "timezone"}`. Not sent when the dataflow has it already. Templated.
    :param window_start: instead of the DAG run's own; aware datetime, ISO 8601 with an offset or epoch
        seconds; with window_end. Templated.
    :param window_end: the window's end, exclusive; as window_start.
    :param start_time: when the run begins, in the same forms; default: now. Templated.
    :param wait_for_completion: False creates only, and a `FlowRunSensor` waits; True waits in this task.
    :param deferrable: wait in the triggerer instead of on a worker; default: Airflow's
        `[operators] default_deferrable`.
    :param poll_interval: seconds between two looks at the run; the first ones come sooner.
    :param wait_timeout: seconds (or `timedelta`) after which waiting ends with `FlowRunTimeoutError`; the next
        attempt waits for the same run.
    :param check_flow: read the dataflow before its run is created, and refuse with a remedy what cannot work.
    :param on_uncertain: when the answer to the POST was lost and new runs show no window: `fail` with the
        candidates, `adopt` the oldest of them, or `create` another.
    :param uncertain_patience: seconds to look for a run whose answer was lost, before another is created.
    :param flowservice_conn_id: the connection, of type `flowservice`.

    Returns the flow run's id, and pushes the XCom `flow_run` (see `ingestion.outcome.summary_of`).

    :raises WindowError: the DAG run has no window, or one that is not over; nothing is created.
    :raises RunRefusedError: Flow Service refused; nothing is created.
    :raises FlowRunFailedError: the run failed.
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
        start_time: str | datetime | float | None = None,
        check_flow: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.flow_id = flow_id
        self.delta_column = delta_column
        self.window_start = window_start
        self.window_end = window_end
        self.start_time = start_time
        self.check_flow = check_flow
        # A template that renders to a native None must not pass for one that was never given.
        self._given = {name for name in ("window_start", "window_end", "start_time") if getattr(self, name) is not None}
        if len(self._given & {"window_start", "window_end"}) == 1:
            raise ConfigurationError(
                f"only {next(iter(self._given - {'start_time'}))} is given",
                remedy="give window_start and window_end, or neither",
            )

    def _order(self, context: Mapping[str, Any], hook: FlowServiceHook) -> Order:
        from airflow_flowservice.api.models import DeltaColumn
        from airflow_flowservice.ingestion.intent import Order
        from airflow_flowservice.ingestion.window import parse_instant

        if not self.flow_id or not isinstance(self.flow_id, str):
            raise ConfigurationError(
                f"flow_id is {self.flow_id!r}", remedy="set flow_id; if it is a template, check it"
            )
        window = self._window(context)
        window.require_past(now=_airflow.utc_now())
        self.log.info("Window %s (%s seconds) of dataflow %s", window, f"{window.seconds:,}", self.flow_id)
        return Order(
            flow_id=self.flow_id.strip(),
            window=window,
            start_time=parse_instant(self.start_time, name="start_time") if "start_time" in self._given else None,
            delta_column=None if self.delta_column is None else DeltaColumn.parse(self.delta_column),
        )

    def _window(self, context: Mapping[str, Any]) -> IngestionWindow:
        from airflow_flowservice.ingestion.window import IngestionWindow, parse_instant

        if "window_start" not in self._given:
            return _airflow.window_from_context(context)
        return IngestionWindow(
            parse_instant(self.window_start, name="window_start"), parse_instant(self.window_end, name="window_end")
        )

    def _prepare(self, order: Order, hook: FlowServiceHook) -> Order:
        from airflow_flowservice.ingestion.flow_check import checked

        return checked(order, hook.client.get_flow(order.flow_id)) if self.check_flow else order


class RetriggerFlowRunOperator(_CreatesFlowRun):
    """Starts a flow run again with Flow Service's `POST /runs/{id}/action?op=re-trigger`, once.

    Adobe allows it for failed runs and for successes without records; the answer is a new run, which
    reads the original window again.

    :param flow_run_id: the run to repeat; templated.

    Waiting, `on_uncertain`, result, XComs and errors are those of `OnDemandFlowRunOperator`.

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
