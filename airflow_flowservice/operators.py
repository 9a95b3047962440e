"""Operators that create flow runs in Adobe Flow Service."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from datetime import timedelta
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from airflow.sdk import BaseOperator

from airflow_flowservice._airflow import choose_window, metrics, task_context, task_end, versions, waiting
from airflow_flowservice._airflow.tolerance import Tolerance
from airflow_flowservice.exceptions import ConfigurationError, FlowRunTimeoutError, FlowRunUncertainError, telling
from airflow_flowservice.links import DataflowLink, FlowRunLink

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from airflow.sdk import Context

    from airflow_flowservice.api.models import FlowRun
    from airflow_flowservice.hooks import FlowServiceHook
    from airflow_flowservice.runs.intent import Order
    from airflow_flowservice.runs.summary import FlowRunSummary
    from airflow_flowservice.runs.watch import RunWatch

__all__ = ["OnDemandFlowRunOperator", "RetriggerFlowRunOperator"]

_ON_UNCERTAIN = ("fail", "adopt", "create")
_WINDOWS = ("period", "since_last_success")


class _FlowRunOperator(BaseOperator):
    """Creates one flow run whatever fails, and waits for it if it is asked to."""

    operator_extra_links = (FlowRunLink(), DataflowLink())
    ui_color = "#fbe4e2"
    check_flow = False

    def __init__(
        self,
        *,
        wait_for_completion: bool = False,
        deferrable: bool | None = None,
        poll_interval: float = 30.0,
        wait_timeout: float | timedelta | None = None,
        error_budget: float | timedelta = 1800.0,
        max_failed_records: int | None = None,
        max_failed_ratio: float | None = None,
        on_empty: Literal["succeed", "skip", "fail"] = "succeed",
        on_uncertain: Literal["fail", "adopt", "create"] = "fail",
        uncertain_patience: float = 180.0,
        flowservice_conn_id: str = "flowservice_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if on_uncertain not in _ON_UNCERTAIN:
            raise ConfigurationError(f"on_uncertain is {on_uncertain!r}", remedy=f"use one of {_ON_UNCERTAIN}")
        self.wait_for_completion = wait_for_completion
        self.deferrable = versions.default_deferrable() if deferrable is None else deferrable
        self.poll_interval = waiting.positive_seconds(poll_interval, name="poll_interval")
        self.wait_timeout = (
            None if wait_timeout is None else waiting.positive_seconds(wait_timeout, name="wait_timeout")
        )
        self.error_budget = waiting.positive_seconds(error_budget, name="error_budget")
        self.tolerance = Tolerance.of_task(
            max_failed_records=max_failed_records, max_failed_ratio=max_failed_ratio, on_empty=on_empty
        )
        self.on_uncertain = on_uncertain
        self.uncertain_patience = waiting.positive_seconds(uncertain_patience, name="uncertain_patience")
        self.flowservice_conn_id = flowservice_conn_id
        # So that what a task found out, such as its window, shows among its rendered templates.
        self.overwrite_rtif_after_execution = versions.takes_rendered_fields_again()
        self._flow_run: FlowRunSummary | None = None
        self._is_creating = False
        self.flow_run_summary: FlowRunSummary | None = None
        self.flow_run_url: str | None = None
        self.dataflow_url: str | None = None
        self.was_deferred = False

    def execute(self, context: Context) -> str:
        """Create the run, or find the one of an earlier attempt; then wait if asked to. The run's id."""
        with task_end.task_errors():
            hook = self._hook()
            order = self._order(context, hook)
            with telling(flow_id=order.flow_id, window=str(order.window) if order.window else None):
                summary = self._create(context, hook, order)
            if not self.wait_for_completion:
                waiting.tell_outlets(self, context, summary)
                return summary.id
            if self.deferrable:
                self._defer(context, summary)
            return self._wait(context, hook, summary)

    def execute_complete(self, context: Context, event: Any) -> str:
        """End the task with what the trigger saw. The run's id.

        :raises FlowRunFailedError: the run failed.
        """
        with task_end.task_errors():
            summary = waiting.summary_from_event(context, event)
            self._recall(summary)
            return waiting.finish(self, context, summary)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """As `BaseOperator.resume_execution`; after a time limit, the run is looked at once more.

        :raises FlowRunTimeoutError: it goes on.
        """
        if waiting.is_another_attempts(context, next_kwargs):
            return self.execute(context)
        self.was_deferred = True
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except versions.airflow_exception("TaskDeferralTimeout"):
            with task_end.task_errors():
                return self._end_after_limit(context)

    def on_kill(self) -> None:
        """Say that the run goes on; Adobe cannot cancel it."""
        if self._flow_run:
            waiting.say_that_it_goes_on(self._flow_run.id, self._flow_run.url)
        elif self._is_creating:
            self.log.warning(
                "Killed before a flow run was known. If one was created, it continues, since Adobe cannot cancel it; "
                "the next attempt searches for it first."
            )

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:
        """What the flow run read and wrote, for Airflow's OpenLineage listener; also when the task failed."""
        from airflow_flowservice.openlineage import lineage_of

        return lineage_of(self, task_instance)

    get_openlineage_facets_on_failure = get_openlineage_facets_on_complete

    @abstractmethod
    def _order(self, context: Mapping[str, Any], hook: FlowServiceHook) -> Order:
        """What the task wants."""

    def _recall(self, summary: FlowRunSummary) -> None:
        """Take up again what the process before this one found out."""

    def _hook(self) -> FlowServiceHook:
        from airflow_flowservice.hooks import FlowServiceHook

        return FlowServiceHook(self.flowservice_conn_id)

    def _create(self, context: Mapping[str, Any], hook: FlowServiceHook, order: Order) -> FlowRunSummary:
        from airflow_flowservice.runs.create_once import CreateOnce
        from airflow_flowservice.runs.summary import FlowRunSummary

        self._is_creating = True

        pages = hook.pages

        def url(flow_run_id: str) -> str:
            return pages.flow_run(order.flow_id, flow_run_id)

        waiting.show_dataflow(self, context, pages.dataflow(order.flow_id))
        create_once = CreateOnce(
            service=hook.client,
            store=task_context.state_store(context),
            attempt=task_context.attempt_of(context),
            on_uncertain=self.on_uncertain,
            adopt=task_context.run_to_adopt(context),
            patience=self.uncertain_patience,
            clock_offset=lambda: hook.client.clock_offset,
            check_flow=self.check_flow,
            link=url,
        )
        try:
            outcome = create_once(order)
        except FlowRunUncertainError:
            metrics.count("runs.uncertain")
            raise
        metrics.count(f"runs.{outcome.how}")
        summary = FlowRunSummary.of_new(
            outcome.flow_run_id, flow_id=order.flow_id, window=order.window, url=url(outcome.flow_run_id)
        )
        self.log.info("Flow run %s %s for window %s: %s", summary.id, outcome.how, order.window, summary.url)
        self._flow_run = summary
        waiting.show(self, context, summary)
        return summary

    def _defer(self, context: Mapping[str, Any], summary: FlowRunSummary) -> NoReturn:
        from airflow_flowservice.triggers import FlowRunTrigger

        waiting.push_return_value(self, context, summary.id)
        waiting.note_attempt(context)
        self.defer(
            trigger=FlowRunTrigger(
                flow_run_id=summary.id,
                flowservice_conn_id=self.flowservice_conn_id,
                poll_interval=self.poll_interval,
                flow_id=summary.flow_id,
                window=summary.window_text,
                url=summary.url,
                ends_task=task_end.ends_in_triggerer(self),
                error_budget=self.error_budget,
                **self.tolerance.to_arguments(),
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=min(self._limits.values())) if self._limits else None,
        )

    @property
    def _limits(self) -> dict[str, float]:
        """Seconds of each time limit that there is, by name."""
        limits = {} if self.wait_timeout is None else {"wait_timeout": self.wait_timeout}
        if self.execution_timeout is not None:
            limits["execution_timeout"] = self.execution_timeout.total_seconds()
        return limits

    def _wait(self, context: Mapping[str, Any], hook: FlowServiceHook, summary: FlowRunSummary) -> str:
        from airflow_flowservice.runs.watch import wait_for_end

        watch = self._watch(summary, timeout=self.wait_timeout)
        with telling(flow_id=summary.flow_id, window=summary.window_text):
            try:
                run = wait_for_end(watch, metrics.counted(hook.client.get_run))
            except versions.airflow_exception("AirflowTaskTimeout") as error:
                raise watch.timed_out("execution_timeout", self._limits["execution_timeout"]) from error
        return self._finish(context, summary, run)

    def _end_after_limit(self, context: Mapping[str, Any]) -> str:
        """A last look: a run that has ended by now ends the task, whatever the triggerer was busy with."""
        limit, seconds = min(self._limits.items(), key=itemgetter(1), default=("its time limit", None))
        summary = waiting.pushed_summary(context)
        if summary is None:
            raise FlowRunTimeoutError(
                f"{limit} is over, and what the task pushed of its flow run is not there any more"
            )
        self._recall(summary)
        watch = self._watch(summary)
        run = watch.last_look(lambda flow_run_id: self._hook().client.get_run(flow_run_id))
        if run is not None:
            return self._finish(context, summary, run)
        raise watch.timed_out(limit, seconds).about(flow_id=summary.flow_id, window=summary.window_text)

    def _watch(self, summary: FlowRunSummary, *, timeout: float | None = None) -> RunWatch:
        from airflow_flowservice.runs.watch import RunWatch

        return RunWatch(
            flow_run_id=summary.id,
            poll_interval=self.poll_interval,
            timeout=timeout,
            error_budget=self.error_budget,
            url=summary.url,
        )

    def _finish(self, context: Mapping[str, Any], summary: FlowRunSummary, run: FlowRun) -> str:
        from airflow_flowservice.runs.summary import FlowRunSummary

        ended = FlowRunSummary.of(run, url=summary.url)
        return waiting.finish(self, context, replace(ended, flow_id=summary.flow_id, window=summary.window))


class OnDemandFlowRunOperator(_FlowRunOperator):
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
    :param max_failed_ratio: which share of the records may fail, 0 to 1 (see `FlowRunSummary.failed_ratio`).
        Of a success that gives no count, none is taken to have failed; a `partialSuccess` without counts fails.
    :param on_empty: what a run without records makes of the task: `succeed`, `skip` or `fail`. Counts that Flow Service
        does not give are not zero.
    :param check_flow: read the dataflow before its run is created, and refuse with a remedy what cannot work.
    :param on_uncertain: when the answer to the POST was lost and new runs show no window: `fail` with the
        candidates, `adopt` the oldest of them, or `create` another.
    :param uncertain_patience: seconds to look for a run whose answer was lost, before another is created.
    :param flowservice_conn_id: the connection, of type `flowservice`.

    Returns the flow run's id, and pushes the XCom `flow_run` (see `FlowRunSummary.to_json`).

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
        from airflow_flowservice.runs.intent import Order
        from airflow_flowservice.windows.window import iso, parse_instant

        if not self.flow_id or not isinstance(self.flow_id, str):
            raise ConfigurationError(
                f"flow_id is {self.flow_id!r}", remedy="set flow_id; if it is a template, check it"
            )
        with telling(flow_id=self.flow_id):
            choice = self._choose(context, hook)
        window = choice.window
        self.window_start, self.window_end = iso(window.start), iso(window.end)
        self.log.info(
            "Window %s (%s seconds) of dataflow %s: %s", window, f"{window.seconds:,}", self.flow_id, choice.source
        )
        with telling(flow_id=self.flow_id, window=str(window)):
            choose_window.warn(choice, context, mode=self.window, offset=self.window_offset)
            window.require_past(
                now=versions.utc_now(),
                remedy=choose_window.remedy_if_future(context["dag"].timetable, offset=self.window_offset)
                if choice.period
                else None,
            )
            return Order(
                flow_id=self.flow_id.strip(),
                window=window,
                start_time=parse_instant(self.start_time, name="start_time") if "start_time" in self._given else None,
                delta_column=None if self.delta_column is None else DeltaColumn.parse(self.delta_column),
            )

    def _choose(self, context: Mapping[str, Any], hook: FlowServiceHook) -> choose_window.Choice:
        from airflow_flowservice.windows.window import IngestionWindow, parse_instant

        if "window_start" in self._given:
            window = IngestionWindow(
                parse_instant(self.window_start, name="window_start"), parse_instant(self.window_end, name="window_end")
            )
            return choose_window.Choice(window=window, source="the task's window_start and window_end")
        choice = choose_window.choose(context, offset=self.window_offset)
        if self.window == "period":
            return choice
        return choose_window.reach_back(choice, context, flow_id=self.flow_id.strip(), service=hook.client)

    def _recall(self, summary: FlowRunSummary) -> None:
        from airflow_flowservice.windows.window import END, START, window_to_json

        edges = window_to_json(summary.window)
        self.window_start, self.window_end = edges[START], edges[END]


class RetriggerFlowRunOperator(_FlowRunOperator):
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
        from airflow_flowservice.runs.intent import Order

        if not self.flow_run_id or not isinstance(self.flow_run_id, str):
            raise ConfigurationError(
                f"flow_run_id is {self.flow_run_id!r}", remedy="set flow_run_id; if it is a template, check it"
            )
        run = hook.client.get_run(self.flow_run_id)
        if run.flow_id is None:
            raise ConfigurationError("the flow run does not say which dataflow it is of", flow_run_id=run.id)
        return Order(flow_id=run.flow_id, window=run.window, retrigger=self.flow_run_id)


def _offset(offset: timedelta | None) -> timedelta | None:
    """Checked when the DAG is parsed; only a fixed length of time keeps the windows' seams together."""
    if offset is None or isinstance(offset, timedelta):
        return offset
    raise ConfigurationError(
        f"window_offset is {offset!r}", remedy="use a timedelta, such as timedelta(hours=-6) for data six hours late"
    )
