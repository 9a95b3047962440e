"""Operators that create flow runs in Adobe Flow Service."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from datetime import timedelta
from functools import cached_property
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from airflow.sdk import BaseOperator

from airflow_flowservice._airflow import choose_window, intent_variable, metrics, task_context, task_end, versions
from airflow_flowservice._airflow.flow_run_task import (
    FlowRunTaskMixin,
    log_run_continues,
    positive_seconds,
    pushed_summary,
)
from airflow_flowservice.exceptions import (
    ConfigurationError,
    FlowRunTimeoutError,
    FlowRunUncertainError,
    WindowIngestedError,
    error_context,
)
from airflow_flowservice.links import DataflowLink, FlowRunLink

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from airflow.sdk import Context

    from airflow_flowservice.api.models import FlowRun
    from airflow_flowservice.hooks import FlowServiceHook
    from airflow_flowservice.runs.intent import Order, Outcome
    from airflow_flowservice.runs.ledger_intents import LedgerPolicy
    from airflow_flowservice.runs.summary import FlowRunSummary
    from airflow_flowservice.runs.watch import RunWatch

__all__ = ["OnDemandFlowRunOperator", "RetriggerFlowRunOperator"]

_ON_UNCERTAIN = ("fail", "adopt", "create")
_ON_INGESTED = ("reuse", "fail", "skip", "restate")
_ON_OVERLAP = ("fail", "restate")
_WINDOWS = ("period", "since_last_success")


class _FlowRunOperator(FlowRunTaskMixin, BaseOperator):
    """Create one flow run, and optionally wait for it."""

    operator_extra_links = (FlowRunLink(), DataflowLink())
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
        wait_for_batch: bool = False,
        on_uncertain: Literal["fail", "adopt", "create"] = "fail",
        uncertain_patience: float = 180.0,
        flowservice_conn_id: str = "flowservice_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._configure(
            error_budget=error_budget,
            max_failed_records=max_failed_records,
            max_failed_ratio=max_failed_ratio,
            on_empty=on_empty,
            wait_for_batch=wait_for_batch,
            flowservice_conn_id=flowservice_conn_id,
        )
        self.wait_for_completion = wait_for_completion
        self.deferrable = versions.default_deferrable() if deferrable is None else deferrable
        self.poll_interval = positive_seconds(poll_interval, name="poll_interval")
        self.wait_timeout = None if wait_timeout is None else positive_seconds(wait_timeout, name="wait_timeout")
        self.on_uncertain = _one_of(on_uncertain, _ON_UNCERTAIN, name="on_uncertain")
        self.uncertain_patience = positive_seconds(uncertain_patience, name="uncertain_patience")
        # The task chooses its window. Rendering again shows the window among the rendered templates.
        self.overwrite_rtif_after_execution = versions.supports_rerendered_fields()
        self._created: FlowRunSummary | None = None
        self._is_creating = False

    def execute(self, context: Context) -> str:
        """Create the flow run, or find the one of an earlier attempt. Optionally wait. Return the flow run id."""
        with task_end.task_errors():
            order = self._order(context)
            with error_context(flow_id=order.flow_id, window=str(order.window) if order.window else None):
                summary = self._create(context, order)
            if not self.wait_for_completion:
                self._deliver(context, summary, succeeded=summary.succeeded)
                intent_variable.remove_after_success(context)
                self._add_outlet_event_extra(context, summary)
                return summary.id
            if summary.succeeded:
                return self._finish(context, summary)
            if self.deferrable and not self._is_nested(context):
                self._defer(context, summary)
            return self._wait(context, summary)

    def on_kill(self) -> None:
        """Log that the flow run continues, because Adobe cannot cancel it."""
        if self._created:
            log_run_continues(self._created.id, self._created.url)
        elif self._is_creating:
            self.log.warning(
                "Killed before a flow run was known. If one was created, it continues, since Adobe cannot cancel it; "
                "the next attempt searches for it first."
            )

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:
        """Return the datasets of the flow run, for Airflow's OpenLineage listener; also if the task failed."""
        from airflow_flowservice.openlineage import lineage_of

        return lineage_of(self, task_instance)

    get_openlineage_facets_on_failure = get_openlineage_facets_on_complete

    @abstractmethod
    def _order(self, context: Mapping[str, Any]) -> Order:
        """Return the flow run to create."""

    def _restore(self, summary: FlowRunSummary) -> None:
        """Set the fields that an earlier process of this task found."""

    @cached_property
    def _hook(self) -> FlowServiceHook:
        from airflow_flowservice.hooks import FlowServiceHook

        return FlowServiceHook(self.flowservice_conn_id)

    @property
    def _wait_limit(self) -> tuple[str, float | None]:
        return "wait_timeout", self.wait_timeout

    @property
    def _first_read_budget(self) -> float:
        """Return the error budget of the first read of a known flow run; a `wait_timeout` also limits it."""
        return min(self.error_budget, self.wait_timeout or self.error_budget)

    def _create(self, context: Mapping[str, Any], order: Order) -> FlowRunSummary:
        from airflow_flowservice.runs.summary import FlowRunSummary

        self._is_creating = True
        pages = self._hook.pages
        # A second start of this attempt is recognized by this XCom, so it is pushed before the POST.
        self._show_dataflow(context, pages.dataflow(order.flow_id))
        outcome = self._create_once(context, order)
        summary = FlowRunSummary.of_new(
            outcome.flow_run_id,
            flow_id=order.flow_id,
            window=order.window,
            url=pages.flow_run(order.flow_id, outcome.flow_run_id),
        )
        if outcome.is_ingested:
            summary = replace(summary, status="success", output_records=outcome.output_records)
        self.log.info("Flow run %s %s for window %s: %s", summary.id, outcome.how, order.window, summary.url)
        self._created = summary
        self._show(context, summary)
        return summary

    def _create_once(self, context: Mapping[str, Any], order: Order) -> Outcome:
        from airflow_flowservice.runs.create_once import CreateOnce

        hook, ledger = self._hook, self._ledger_policy(context, order)
        create_once = CreateOnce(
            service=hook.client,
            # The ledger also keeps the intent; the task's state is read for attempts of an earlier version.
            store=context.get("task_state_store") if ledger else task_context.state_store(context),
            attempt=task_context.attempt_of(context),
            ledger=ledger,
            check_flow=self.check_flow,
            on_uncertain=self.on_uncertain,
            adopt=task_context.run_to_adopt(context),
            patience=self.uncertain_patience,
            error_budget=self._first_read_budget,
            clock_offset=lambda: hook.client.clock_offset,
            has_failed_batches=self._has_failed_batches,
            link=lambda flow_run_id: hook.pages.flow_run(order.flow_id, flow_run_id),
        )
        try:
            outcome = create_once(order)
        except FlowRunUncertainError:
            metrics.count("runs.uncertain")
            raise
        except WindowIngestedError as error:
            if getattr(self, "on_ingested", None) != "skip":
                raise
            error.remedy = None
            raise versions.airflow_exception("AirflowSkipException")(str(error)) from error
        metrics.count(f"runs.{outcome.how}")
        return outcome

    def _ledger_policy(self, context: Mapping[str, Any], order: Order) -> LedgerPolicy | None:
        """Return how the ledger takes part in creating the flow run; None if it does not."""
        return None

    def _defer(self, context: Mapping[str, Any], summary: FlowRunSummary) -> NoReturn:
        from airflow_flowservice.triggers import FlowRunTrigger

        trigger = FlowRunTrigger(
            flow_run_id=summary.id,
            flowservice_conn_id=self.flowservice_conn_id,
            poll_interval=self.poll_interval,
            flow_id=summary.flow_id,
            window=summary.window_text,
            url=summary.url,
            ends_task=self._can_end_in_triggerer(),
            error_budget=self.error_budget,
            wait_for_batch=self.wait_for_batch,
            **self.tolerance.to_arguments(),
        )
        self._defer_to(trigger, context, flow_run_id=summary.id)

    def _wait(self, context: Mapping[str, Any], summary: FlowRunSummary) -> str:
        from airflow_flowservice.runs.watch import wait_for_end

        watch = self._watch(summary, timeout=self.wait_timeout)
        with error_context(flow_id=summary.flow_id, window=summary.window_text):
            try:
                run = wait_for_end(watch, metrics.counted(self._hook.client.get_run), self._read_batches)
            except versions.airflow_exception("AirflowTaskTimeout") as error:
                raise watch.timed_out("execution_timeout", self._limits["execution_timeout"]) from error
        return self._finish(context, _ended(summary, run))

    def _end_after_limit(self, context: Mapping[str, Any]) -> str:
        limit, seconds = min(self._limits.items(), key=itemgetter(1), default=("its time limit", None))
        summary = pushed_summary(context)
        if summary is None:
            raise FlowRunTimeoutError(f"{limit} is over, and the flow run that the task pushed was deleted")
        self._restore(summary)
        watch = self._watch(summary)
        run = watch.poll_after_limit(
            lambda flow_run_id, **limit: self._hook.client.get_run(flow_run_id, **limit), self._read_batches
        )
        if run is not None:
            return self._finish(context, _ended(summary, run))
        raise watch.timed_out(limit, seconds).about(flow_id=summary.flow_id, window=summary.window_text)

    def _finish(self, context: Mapping[str, Any], summary: FlowRunSummary) -> str:
        self._restore(summary)
        intent_variable.remove_after_success(context)
        return super()._finish(context, summary)

    def _watch(self, summary: FlowRunSummary, *, timeout: float | None = None) -> RunWatch:
        from airflow_flowservice.runs.watch import RunWatch

        return RunWatch(
            flow_run_id=summary.id,
            poll_interval=self.poll_interval,
            timeout=timeout,
            error_budget=self.error_budget,
            url=summary.url,
            wait_for_batch=self.wait_for_batch,
        )

    def _has_failed_batches(self, run: FlowRun) -> bool:
        """Return whether nothing of a succeeded flow run is ingested, if the task waits for batches."""
        from airflow_flowservice.runs.batch_watch import has_failed_batches

        return self._read_batches is not None and has_failed_batches(run, self._read_batches)


def _ended(summary: FlowRunSummary, run: FlowRun) -> FlowRunSummary:
    """Return the summary of the ended flow run, with the dataflow and window of the order."""
    from airflow_flowservice.runs.summary import FlowRunSummary

    return replace(FlowRunSummary.of(run, url=summary.url), flow_id=summary.flow_id, window=summary.window)


class OnDemandFlowRunOperator(_FlowRunOperator):
    """Ingest the DAG run's window: create a flow run, exactly once, with Flow Service's `POST /runs`.

    The window is the DAG run's data interval. If Airflow leaves the interval empty (as for `schedule="@daily"`), the
    window is the schedule's period that ends at the logical date. A manual DAG run uses `window_start` and
    `window_end` of its conf or of the DAG's params; without them, it uses the last complete period. A DAG run that
    assets triggered uses the window of their events.

    :param flow_id: id of the dataflow, which must be scheduled one-time; templated.
    :param delta_column: for table-based sources, the column that distinguishes new rows: its name, or
        `{"name", "dateFormat", "timezone"}`. Not sent if the dataflow has one already. Templated.
    :param window_start: start of the window, instead of the DAG run's; aware datetime, ISO 8601 with an offset, or
        epoch seconds. Requires window_end. Templated.
    :param window_end: end of the window, exclusive; in the same forms as window_start.
    :param window_offset: added to the DAG run's own window; negative for data that arrives late. It does not apply to
        explicit windows (arguments, conf, params, events).
    :param window: `period` for the DAG run's own window. `since_last_success` starts at the end of the last successful
        DAG run's window, for DAGs with `catchup=False`; it is refused in backfills.
    :param start_time: when the flow run begins, in the same forms; default: now. Templated.
    :param wait_for_completion: False only creates the flow run, and a `FlowRunSensor` waits; True waits in this task.
    :param deferrable: wait in the triggerer instead of on a worker; default: Airflow's
        `[operators] default_deferrable`.
    :param poll_interval: seconds between two polls of the flow run; the first polls are closer together.
    :param wait_timeout: seconds (or `timedelta`) after which waiting ends with `FlowRunTimeoutError`; the next
        attempt waits for the same flow run.
    :param error_budget: seconds (or `timedelta`) without a valid response after which waiting ends. Until then,
        temporary errors (refused connections, 5xx, 429, an expired token) do not fail the task.
    :param max_failed_records: maximum number of failed records, also of a `partialSuccess`; None allows any number.
        The task that waits checks it; if that is a `FlowRunSensor`, set it there.
    :param max_failed_ratio: maximum share of failed records, 0 to 1 (see `FlowRunSummary.failed_ratio`).
        A success without counts is accepted; a `partialSuccess` without counts fails.
    :param on_empty: result of the task if the flow run has no records: `succeed`, `skip` or `fail`. Missing counts are
        not zero.
    :param wait_for_batch: accept a success only when the flow run's batches are `success` in the catalogue
        (https://experienceleague.adobe.com/en/docs/experience-platform/catalog/api/look-up-object). The task that waits
        checks it; if that is a `FlowRunSensor`, set it there also.
    :param check_flow: read the dataflow before creating, and refuse with a remedy if it cannot work.
    :param on_ingested: reaction if another DAG run or DAG has ingested exactly this window, by the ledger: `reuse` its
        flow run and succeed, `fail`, `skip`, or `restate`: ingest the window again. See the page Guarantees.
    :param on_overlap: reaction if parts of the window are ingested: `fail`, or `restate`: ingest them again.
    :param continues: ids of earlier dataflows that this one replaces; their windows count as ingested.
    :param on_uncertain: reaction if the response to the POST was lost and new flow runs show no window: `fail` with
        the candidates, `adopt` the oldest candidate, or `create` another flow run.
    :param uncertain_patience: seconds to search for a flow run whose response was lost, before another is created.
    :param flowservice_conn_id: id of a connection of type `flowservice`; templated.

    Return the flow run id, and push the XCom `flow_run` (see `FlowRunSummary.to_json`).

    :raises WindowError: the DAG run has no window, or the window is not over; nothing is created.
    :raises WindowIngestedError: the window is ingested, and `on_ingested` is `fail`; nothing is created.
    :raises WindowOverlapError: parts of the window are ingested, and `on_overlap` is `fail`; nothing is created.
    :raises RunRefusedError: Flow Service refused the request; nothing is created.
    :raises FlowRunFailedError: the flow run failed.
    :raises FlowRunOutcomeUnknownError: the flow run ended without a status; a retry reads it again and creates none.
    :raises FlowRunBatchFailedError: the flow run's batches failed; a retry creates another flow run.
    :raises FlowRunIncompleteError: more records failed than allowed; not retried, since the others are ingested.
    :raises FlowRunEmptyError: there were no records, and `on_empty` is `fail`; not retried.
    :raises FlowRunUncertainError: a flow run may exist, and `on_uncertain` is `fail`.

    Source: https://experienceleague.adobe.com/en/docs/experience-platform/sources/api-tutorials/on-demand-ingestion
    """

    template_fields: Sequence[str] = (
        "flow_id",
        "delta_column",
        "window_start",
        "window_end",
        "start_time",
        "flowservice_conn_id",
    )

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
        on_ingested: Literal["reuse", "fail", "skip", "restate"] = "reuse",
        on_overlap: Literal["fail", "restate"] = "fail",
        continues: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        window_text = f"{window_start}/{window_end}" if window_start and window_end else None
        with task_end.constructor_errors(self, flow_id=flow_id, window=window_text):
            super().__init__(**kwargs)
            self.flow_id = flow_id
            self.delta_column = delta_column
            self.window_start = window_start
            self.window_end = window_end
            self.window_offset = _offset(window_offset)
            self.window = window
            self.start_time = start_time
            self.check_flow = check_flow
            self.on_ingested = _one_of(on_ingested, _ON_INGESTED, name="on_ingested")
            self.on_overlap = _one_of(on_overlap, _ON_OVERLAP, name="on_overlap")
            self.continues = (continues,) if isinstance(continues, str) else tuple(continues)
            # A template may render to a native None, which is not the same as an omitted argument.
            optional = ("delta_column", "window_start", "window_end", "start_time")
            self._given = {name for name in optional if getattr(self, name) is not None}
            edges = self._given & {"window_start", "window_end"}
            if len(edges) == 1:
                raise ConfigurationError(
                    f"only {next(iter(edges))} is given",
                    remedy="give window_start and window_end, or neither",
                )
            _one_of(window, _WINDOWS, name="window")

    def _order(self, context: Mapping[str, Any]) -> Order:
        from airflow_flowservice.api.models import DeltaColumn
        from airflow_flowservice.runs.intent import Order
        from airflow_flowservice.windows.window import iso, parse_instant

        self.flow_id = task_context.rendered_id(self.flow_id, name="flow_id")
        with error_context(flow_id=self.flow_id):
            choice = self._choose(context)
        window = choice.window
        self.window_start, self.window_end = iso(window.start), iso(window.end)
        self.log.info(
            "Window %s (%s seconds) of dataflow %s: %s", window, f"{window.seconds:,}", self.flow_id, choice.source
        )
        with error_context(flow_id=self.flow_id, window=str(window)):
            choose_window.log_warnings(choice, context, mode=self.window, offset=self.window_offset)
            window.require_past(
                now=versions.utc_now(),
                remedy=choose_window.future_window_remedy(context["dag"].timetable, offset=self.window_offset)
                if choice.period
                else None,
            )
            return Order(
                flow_id=self.flow_id,
                window=window,
                start_time=parse_instant(self.start_time, name="start_time") if "start_time" in self._given else None,
                delta_column=DeltaColumn.parse(self.delta_column) if "delta_column" in self._given else None,  # type: ignore[arg-type]
            )

    def _choose(self, context: Mapping[str, Any]) -> choose_window.ChosenWindow:
        if "window_start" in self._given:
            return choose_window.of_arguments(self.window_start, self.window_end, context, offset=self.window_offset)
        choice = choose_window.choose(context, offset=self.window_offset)
        if self.window == "period":
            return choice
        return choose_window.extend_to_last_success(
            choice,
            context,
            flow_id=self.flow_id,
            service=self._hook.client,
            has_failed_batches=self._has_failed_batches,
            ledger=self._hook.ledger,
            dataflows=tuple(map(self._hook.dataflow_key, (self.flow_id, *self.continues))),
        )

    def _ledger_policy(self, context: Mapping[str, Any], order: Order) -> LedgerPolicy | None:
        from airflow_flowservice.runs.ledger_intents import LedgerPolicy

        ledger = self._hook.ledger
        if ledger is None:
            return None
        return LedgerPolicy(
            ledger=ledger,
            dataflow=self._hook.dataflow_key(order.flow_id),
            owner=task_context.owner_of(context),
            continues=tuple(map(self._hook.dataflow_key, self.continues)),
            on_ingested=self.on_ingested,
            on_overlap=self.on_overlap,
            restate=task_context.requests_restating(context),
        )

    def _restore(self, summary: FlowRunSummary) -> None:
        from airflow_flowservice.windows.window import END, START, window_to_json

        edges = window_to_json(summary.window)
        self.window_start, self.window_end = edges[START], edges[END]


class RetriggerFlowRunOperator(_FlowRunOperator):
    """Repeat a flow run, exactly once, with Flow Service's `POST /runs/{id}/action?op=re-trigger`.

    Adobe allows it for failed flow runs and for successes without records. The result is a new flow run of the
    original window.

    :param flow_run_id: id of the flow run to repeat; templated.

    The other parameters, the result, the XComs and the errors are those of `OnDemandFlowRunOperator`.

    :raises RunNotFoundError: the flow run does not exist.
    :raises RetriggerRefusedError: the flow run cannot be repeated, or not yet.
    """

    template_fields: Sequence[str] = ("flow_run_id", "flowservice_conn_id")

    def __init__(self, *, flow_run_id: str, **kwargs: Any) -> None:
        with task_end.constructor_errors(self, flow_run_id=flow_run_id):
            super().__init__(**kwargs)
            self.flow_run_id = flow_run_id

    def _order(self, context: Mapping[str, Any]) -> Order:
        from airflow_flowservice.runs.intent import Order
        from airflow_flowservice.runs.watch import read_known_run

        self.flow_run_id = task_context.rendered_id(self.flow_run_id, name="flow_run_id")
        run = read_known_run(
            self._hook.client.get_run,
            self.flow_run_id,
            error_budget=self._first_read_budget,
            poll=min(self.poll_interval, 5.0),
        )
        if run.flow_id is None:
            raise ConfigurationError("the flow run has no dataflow id", flow_run_id=run.id)
        return Order(flow_id=run.flow_id, window=run.window, retrigger=self.flow_run_id)

    def _create_once(self, context: Mapping[str, Any], order: Order) -> Outcome:
        from airflow_flowservice.runs.ledger_intents import record_repetition

        outcome = super()._create_once(context, order)
        if order.window is not None and (ledger := self._hook.ledger) is not None:
            record_repetition(
                ledger,
                dataflow=self._hook.dataflow_key(order.flow_id),
                window=order.window,
                flow_run_id=outcome.flow_run_id,
                owner=task_context.owner_of(context),
            )
        return outcome


def _one_of(value: Any, allowed: tuple[str, ...], *, name: str) -> Any:
    if value in allowed:
        return value
    raise ConfigurationError(f"{name} is {value!r}", remedy=f"use one of {allowed}")


def _offset(offset: timedelta | None) -> timedelta | None:
    # Only a fixed length of time keeps the windows contiguous.
    if offset is None or isinstance(offset, timedelta):
        return offset
    raise ConfigurationError(
        f"window_offset is {offset!r}", remedy="use a timedelta, such as timedelta(hours=-6) for data six hours late"
    )
