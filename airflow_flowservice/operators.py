# SPDX-License-Identifier: Apache-2.0
"""Operators that create flow runs in Adobe Flow Service."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

from airflow_flowservice._airflow import choose_window, named_dataflow, task_context, task_end, versions
from airflow_flowservice._airflow.flow_run_task import boolean, pushed_summary
from airflow_flowservice._flow_run_operator import FlowRunOperator, one_of
from airflow_flowservice.exceptions import ConfigurationError, error_context

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from airflow_flowservice.ledger.entry import DataflowKey
    from airflow_flowservice.runs.intent import Order, Outcome
    from airflow_flowservice.runs.ledger_intents import LedgerPolicy
    from airflow_flowservice.runs.summary import FlowRunSummary
    from airflow_flowservice.windows.window import IngestionWindow

__all__ = ["OnDemandFlowRunOperator", "RetriggerFlowRunOperator"]

_ON_INGESTED = ("reuse", "fail", "skip", "restate")
_ON_OVERLAP = ("fail", "rest", "restate")
_WINDOWS = ("period", "since_last_success")
_EDGES = frozenset({"window_start", "window_end"})
_OPTIONAL = _EDGES | {"delta_column", "start_time"}


class OnDemandFlowRunOperator(FlowRunOperator):
    """Ingest the DAG run's window: create a flow run, exactly once, with Flow Service's `POST /runs`.

    The window is the DAG run's data interval. If Airflow leaves the interval empty (as for `schedule="@daily"`), the
    window is the schedule's period that ends at the logical date. A manual DAG run uses `window_start` and
    `window_end` of its conf or of the DAG's params; without them, it uses the last complete period. A DAG run that
    assets triggered uses the window of their events.

    :param flow_id: id of the dataflow, which must be scheduled one-time; templated.
    :param flow_name: name of the dataflow in the connection's sandbox, instead of `flow_id`; templated. All attempts
        of a task instance use the id that the first one found.
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
    :param wait_for_completion: True waits in this task. With False, a success means only that the flow run was created:
        the flow run can still fail, and a `FlowRunSensor` must wait for it.
    :param deferrable: wait in the triggerer instead of on a worker; default: Airflow's
        `[operators] default_deferrable`.
    :param poll_interval: seconds between two polls of the flow run; the first polls are closer together.
    :param wait_timeout: seconds (or `timedelta`) after which waiting ends with `FlowRunTimeoutError`; the next
        attempt waits for the same flow run.
    :param error_budget: seconds (or `timedelta`) without a valid response after which waiting ends. Until then,
        temporary errors (refused connections, 5xx, 429, an expired token) do not fail the task.
    :param max_failed_records: maximum number of failed records, also of a `partialSuccess`; None allows any number.
        The task that waits checks it; if that is a `FlowRunSensor`, set it there.
    :param max_failed_ratio: maximum share of failed records, 0 to 1: failed records divided by input records.
        A success without counts is accepted; a `partialSuccess` without counts fails.
    :param on_empty: result of the task if the flow run has no records: `succeed`, `skip` or `fail`. Missing counts are
        not zero.
    :param wait_for_batch: accept a success only when the flow run's batches are `success` in the catalogue
        (https://experienceleague.adobe.com/en/docs/experience-platform/catalog/api/look-up-object). The task that waits
        checks it; if that is a `FlowRunSensor`, set it there also.
    :param check_flow: read the dataflow before creating, and refuse with a remedy if it cannot work.
    :param on_ingested: reaction if another DAG run or DAG has ingested exactly this window, by the ledger: `reuse` its
        flow run and succeed, `fail`, `skip`, or `restate`: ingest the window again. See the page Guarantees.
    :param on_overlap: reaction if parts of the window are ingested: `fail`, `rest`: ingest only the rest, with one flow
        run for each contiguous piece, or `restate`: ingest the whole window. See the page Operators and sensor.
    :param continues: ids of earlier dataflows that this one replaces; their windows count as ingested.
    :param on_uncertain: reaction if the response to the POST was lost and new flow runs show no window: `fail` with
        the candidates, `adopt` the oldest candidate, `create` another flow run, or `ask` a person. `ask` uses
        Airflow's Required Actions (Airflow 3.1 and later), and waits without a worker.
    :param uncertain_patience: seconds to search for a flow run whose response was lost, before another is created.
    :param ask_timeout: seconds (or `timedelta`) after which a question of `on_uncertain="ask"` fails the task.
    :param ask_notifiers: notifiers, or functions that take the context, to call when the task asks. The context has
        the page's address as `required_actions_url`.
    :param flowservice_conn_id: id of a connection of type `flowservice`; templated.

    Return the flow run id, and push the XCom `flow_run`, whose keys the page Operators and sensor lists. If several
    flow runs ingested the window, these are of the last one, and the XCom `flow_runs` is the list of all.

    :raises WindowError: the DAG run has no window, or the window is not over; nothing is created.
    :raises WindowIngestedError: the window is ingested, and `on_ingested` is `fail`; nothing is created.
    :raises WindowOverlapError: parts of the window are ingested, and `on_overlap` is `fail`; nothing is created.
    :raises RunRefusedError: Flow Service refused the request; nothing is created.
    :raises FlowRunFailedError: the flow run failed.
    :raises FlowRunOutcomeUnknownError: the flow run ended without a status; a retry reads it again and creates none.
    :raises FlowRunBatchFailedError: the flow run's batches failed; a retry creates another flow run.
    :raises FlowRunIncompleteError: more records failed than allowed; not retried, since the others are ingested.
    :raises FlowRunEmptyError: there were no records, and `on_empty` is `fail`; not retried.
    :raises FlowRunUncertainError: a flow run may exist, and `on_uncertain` is `fail`; or a person chose to fail, or did
        not answer in time.

    Source: https://experienceleague.adobe.com/en/docs/experience-platform/sources/api-tutorials/on-demand-ingestion
    """

    template_fields: Sequence[str] = (
        "flow_id",
        "flow_name",
        "delta_column",
        "window_start",
        "window_end",
        "start_time",
        "flowservice_conn_id",
    )

    # Summaries of the flow runs, and the task's window, if the task or other tasks ingest it in parts.
    _parts: list[FlowRunSummary] | None = None
    _whole: IngestionWindow | None = None
    _is_resumed = False

    def __init__(
        self,
        *,
        flow_id: str | None = None,
        flow_name: str | None = None,
        delta_column: str | dict[str, str] | None = None,
        window_start: str | datetime | float | None = None,
        window_end: str | datetime | float | None = None,
        window_offset: timedelta | None = None,
        window: Literal["period", "since_last_success"] = "period",
        start_time: str | datetime | float | None = None,
        check_flow: bool = True,
        on_ingested: Literal["reuse", "fail", "skip", "restate"] = "reuse",
        on_overlap: Literal["fail", "rest", "restate"] = "fail",
        continues: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        window_text = f"{window_start}/{window_end}" if window_start and window_end else None
        with task_end.constructor_errors(self, flow_id=flow_id, window=window_text):
            super().__init__(**kwargs)
            named_dataflow.require_one(flow_id, flow_name)
            self.flow_id = flow_id
            self.flow_name = flow_name
            self.delta_column = delta_column
            self.window_start = window_start
            self.window_end = window_end
            self.window_offset = _offset(window_offset)
            self.window = window
            self.start_time = start_time
            self.check_flow = boolean(check_flow, name="check_flow")
            # The DAG run's own window, which the task shows in these two fields.
            self._shown_edges: tuple[Any, Any] = (None, None)
            self._configure_ledger(on_ingested, on_overlap)
            self.continues = named_dataflow.earlier_flow_ids(continues)
            self._given_ids = named_dataflow.given_ids(continues)
            # A template may render to a native None, which is not the same as an omitted argument.
            choose_window.require_edges_in_pairs(window_start, window_end)
            self._given: set[str] = set()
            self._given = self._given_arguments()
            one_of(window, _WINDOWS, name="window")

    def _configure_ledger(self, on_ingested: str, on_overlap: str) -> None:
        """Validate and set the reactions to windows in the ledger."""
        self.on_ingested = one_of(on_ingested, _ON_INGESTED, name="on_ingested")
        self.on_overlap = one_of(on_overlap, _ON_OVERLAP, name="on_overlap")
        if self.on_overlap == "rest" and self.on_uncertain == "ask":
            raise ConfigurationError(
                'on_overlap="rest" and on_uncertain="ask" cannot be combined, because a question is of one window',
                remedy='use on_uncertain="fail", and name the flow run in the conf of a DAG run if it happens',
            )

    def _given_arguments(self) -> set[str]:
        """Return the names of the optional arguments that are given to the constructor, or set since.

        A subclass or a callback may set them, for instance in `pre_execute`.

        :raises ConfigurationError: only one edge of the window is given.
        """
        given = {name for name in _OPTIONAL if getattr(self, name) is not None}
        if (self.window_start, self.window_end) == self._shown_edges:
            given -= _EDGES
        # The same object was not set since. An equal one may have been set, together with the other edge.
        shown = zip(("window_start", "window_end"), self._shown_edges, strict=True)
        given -= {name for name, value in shown if getattr(self, name) is value}
        given |= self._given
        if len(edges := given & _EDGES) == 1:
            raise ConfigurationError(
                f"only {next(iter(edges))} is given", remedy="give window_start and window_end, or neither"
            )
        return given

    def _after_rendering(self, context: Mapping[str, Any]) -> None:
        """Set the window of a DAG run of the schedule, so that the first rendered templates show it.

        If a subclass or a callback may read the arguments before `execute`, they stay as the user gave them.
        """
        is_plain = type(self) is OnDemandFlowRunOperator and not task_end.must_start_on_worker(self)
        if not is_plain or self.window != "period" or not task_context.is_of_schedule(context):
            return
        from airflow_flowservice.windows.window import iso

        try:
            if self._given_arguments().isdisjoint(_EDGES):
                window = choose_window.choose(context, offset=self.window_offset).window
                self.window_start, self.window_end = self._shown_edges = iso(window.start), iso(window.end)
        except Exception as error:  # `execute` raises it.
            self.log.debug("The window cannot be shown before the task begins: %s", error)

    def _order(self, context: Mapping[str, Any]) -> Order:
        from airflow_flowservice.api.models import DeltaColumn
        from airflow_flowservice.runs.intent import Order
        from airflow_flowservice.windows.window import iso, parse_instant

        flow_id = named_dataflow.chosen_flow_id(
            context, flow_id=self.flow_id, flow_name=self.flow_name, find=lambda name: self._hook.flow_id_of(name)
        )
        self._set_flow_id(flow_id)
        with error_context(flow_id=flow_id):
            given = self._given_arguments()
            has_edges = given.issuperset(_EDGES)
            choice = self._choose(context, flow_id=flow_id, is_given=has_edges)
        window = choice.window
        self.window_start, self.window_end = iso(window.start), iso(window.end)
        if not has_edges:
            self._shown_edges = self.window_start, self.window_end
        self.log.info(
            "Window %s (%s seconds) of dataflow %s: %s", window, f"{window.seconds:,}", flow_id, choice.source
        )
        with error_context(flow_id=flow_id, window=window):
            choose_window.log_warnings(choice, context, mode=self.window, offset=self.window_offset)
            window.require_past(
                now=versions.utc_now(),
                remedy=choose_window.future_window_remedy(context["dag"].timetable, offset=self.window_offset)
                if choice.period
                else None,
            )
            return Order(
                flow_id=flow_id,
                window=window,
                start_time=parse_instant(self.start_time, name="start_time") if "start_time" in given else None,
                delta_column=DeltaColumn.parse(self.delta_column) if "delta_column" in given else None,  # type: ignore[arg-type]
            )

    def _choose(self, context: Mapping[str, Any], *, flow_id: str, is_given: bool) -> choose_window.ChosenWindow:
        if self._is_resumed and self._whole is not None:
            return choose_window.ChosenWindow(window=self._whole, source="chosen before the task was deferred")
        if is_given:
            choose_window.require_expanded_pairs(context, task_id=self.task_id)
            return choose_window.of_arguments(self.window_start, self.window_end, context, offset=self.window_offset)
        choice = choose_window.choose(context, offset=self.window_offset)
        if self.window == "period":
            return choice
        return choose_window.extend_to_last_success(
            choice,
            context,
            flow_id=flow_id,
            service=self._hook.client,
            has_failed_batches=self._has_failed_batches,
            ledger=self._hook.ledger,
            dataflows=(self._hook.dataflow_key(flow_id), *self._earlier_dataflows(flow_id)),
        )

    def _set_flow_id(self, flow_id: str) -> None:
        self._given_ids |= named_dataflow.given_ids(self.flow_id)
        self.flow_id = flow_id

    def _earlier_dataflows(self, flow_id: str) -> tuple[DataflowKey, ...]:
        return named_dataflow.earlier_dataflows(
            self._hook.dataflow_key, flow_id=flow_id, continues=self.continues, given=self._given_ids
        )

    def _ledger_policy(self, context: Mapping[str, Any], order: Order) -> LedgerPolicy | None:
        from airflow_flowservice._airflow.ledgers import require_overlap_search
        from airflow_flowservice.runs.ledger_intents import LedgerPolicy

        ledger = self._hook.ledger
        if self.on_overlap == "rest":
            require_overlap_search(ledger)
        if ledger is None:
            return None
        return LedgerPolicy(
            ledger=ledger,
            dataflow=self._hook.dataflow_key(order.flow_id),
            owner=task_context.owner_of(context),
            continues=self._earlier_dataflows(order.flow_id),
            on_ingested=self.on_ingested,
            on_overlap=self.on_overlap,
            restate=task_context.requests_restating(context, flow_id=order.flow_id),
        )

    def _restore(self, summary: FlowRunSummary) -> None:
        self._restore_window(summary.window if self._parts is None else self._whole)

    def _restore_order(self, order: Order) -> None:
        self._set_flow_id(order.flow_id)
        self._restore_window(order.window)

    def _restore_window(self, window: IngestionWindow | None) -> None:
        from airflow_flowservice.windows.window import END, START, window_to_json

        edges = window_to_json(window)
        self.window_start, self.window_end = edges[START], edges[END]

    def _ingest(self, context: Mapping[str, Any], order: Order) -> str:
        self._parts, self._whole, self._is_resumed = None, order.window, False
        if self.on_overlap == "rest":
            return self._ingest_rest(context, order)
        flow_run_id = super()._ingest(context, order)
        return flow_run_id if self._parts is None else self._finish_parts(context)

    def _ingest_rest(self, context: Mapping[str, Any], order: Order) -> str:
        """Ingest the pieces of the window one after another. Usually, the whole window is the only one.

        The ledger is read again before each piece, so that time which another task ingested meanwhile is omitted.
        """
        while True:
            with error_context(flow_id=order.flow_id, window=order.window):
                pieces = self._creation(context, order).pieces(order)
            if pieces == [order.window]:
                flow_run_id = super()._ingest(context, order)
                return flow_run_id if self._parts is None else self._finish_parts(context)
            done = {part.window for part in self._parts or ()}
            left = [piece for piece in pieces if piece not in done]
            if not left:
                return self._finish_parts(context)
            self._parts = self._parts or []
            self.log.info("Parts of the window are ingested; the rest is: %s", ", ".join(map(str, left)))
            super()._ingest(context, replace(order, window=left[0]))

    def _create_once(self, context: Mapping[str, Any], order: Order) -> Outcome:
        from airflow_flowservice.runs.summary import FlowRunSummary

        outcome = super()._create_once(context, order)
        if outcome.parts:
            found = [
                FlowRunSummary(
                    id=part.flow_run_id,
                    flow_id=part.flow_id,
                    status="success",
                    window=part.window,
                    output_records=part.output_records,
                    url=self._hook.pages.flow_run(part.flow_id, part.flow_run_id),
                    part_of=self._whole,
                )
                for part in outcome.parts
            ]
            self._parts = [*(self._parts or ()), *found]
        return outcome

    def _show(self, context: Mapping[str, Any], summary: FlowRunSummary) -> None:
        if self._parts is None:
            super()._show(context, summary)
            return
        summary = replace(summary, part_of=self._whole)
        super()._show(context, summary)
        self._parts = [*(part for part in self._parts if part.id != summary.id), summary]
        context["ti"].xcom_push(key=task_context.FLOW_RUNS_KEY, value=[part.to_json() for part in self._parts])

    def _can_end_in_triggerer(self) -> bool:
        return self._parts is None and super()._can_end_in_triggerer()

    def _resume(self, context: Mapping[str, Any]) -> None:
        from airflow_flowservice.runs.summary import FlowRunSummary

        current = pushed_summary(context) if self.on_overlap == "rest" else None
        if current is None or current.part_of is None:
            return
        pushed = task_context.read_xcom(context["ti"], key=task_context.FLOW_RUNS_KEY)
        found = map(FlowRunSummary.from_json, pushed if isinstance(pushed, list) else [])
        self._parts = [part for part in found if part is not None]
        self._whole, self._is_resumed = current.part_of, True

    def _finish(self, context: Mapping[str, Any], summary: FlowRunSummary) -> str:
        if self._parts is None:
            return super()._finish(context, summary)
        self._restore(summary)
        self._show(context, summary)
        with self._ending(context, summary):
            summary.require_success()
        self.log.info(summary.describe())
        # The task has not ended, so a clear must accept this flow run.
        self._record(summary, owner=None)
        self._log_errors(summary)
        if not self._is_resumed:
            return summary.id
        order = self._order(context)
        self._is_resumed = False
        return self._ingest_rest(context, order)

    def _leave(self, context: Mapping[str, Any], summary: FlowRunSummary) -> str:
        return summary.id if self._parts is not None else super()._leave(context, summary)

    def _finish_parts(self, context: Mapping[str, Any]) -> str:
        """End the task with the flow runs of all parts: limits and the outlets' events are for their sum."""
        from airflow_flowservice.runs.summary import combined

        if not self._parts or self._whole is None:
            raise TypeError("a window that is ingested in parts has at least one flow run")
        summary = combined(self._parts, window=self._whole)
        if self.wait_for_completion:
            with self._ending(context, summary):
                self.tolerance.require(summary)
        return super()._leave(context, summary)

    def _deliver(self, context: Mapping[str, Any], summary: FlowRunSummary, *, succeeded: bool = True) -> None:
        if self._parts is None:
            super()._deliver(context, summary, succeeded=succeeded)
        for part in self._parts or ():
            if summary.window and part.window and summary.window.contains(part.window):
                super()._deliver(context, part, succeeded=succeeded and part.succeeded)


class RetriggerFlowRunOperator(FlowRunOperator):
    """Repeat a flow run, exactly once, with Flow Service's `POST /runs/{id}/action?op=re-trigger`.

    Adobe allows it for failed flow runs and for successes without records. The result is a new flow run of the
    original window.

    :param flow_run_id: id of the flow run to repeat; templated.

    The parameters of waiting (from `wait_for_completion` to `wait_for_batch`), `on_uncertain` and the parameters that
    belong to it, and `flowservice_conn_id` are those of `OnDemandFlowRunOperator`. The result, the XComs and the errors
    are also the same.

    :raises RunNotFoundError: the flow run does not exist.
    :raises RetriggerRefusedError: the flow run cannot be repeated, or not yet.
    """

    template_fields: Sequence[str] = ("flow_run_id", "flowservice_conn_id")

    _is_recorded = True

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
        outcome = super()._create_once(context, order)
        self._is_recorded = self._record_repetition(context, order.flow_id, order.window, outcome.flow_run_id)
        return outcome

    def _record_repetition(
        self,
        context: Mapping[str, Any],
        flow_id: str | None,
        window: IngestionWindow | None,
        flow_run_id: str,
        *,
        repeats: str | None = None,
    ) -> bool:
        """Record the new flow run in the ledger. Return False if this is necessary and failed."""
        from airflow_flowservice.runs.ledger_intents import record_repetition

        if flow_id is None or window is None or (ledger := self._hook.ledger) is None:
            return True
        return record_repetition(
            ledger,
            dataflow=self._hook.dataflow_key(flow_id),
            window=window,
            flow_run_id=flow_run_id,
            owner=task_context.owner_of(context),
            repeats=repeats,
        )

    def _can_end_in_triggerer(self) -> bool:
        return self._is_recorded and super()._can_end_in_triggerer()

    def _deliver(self, context: Mapping[str, Any], summary: FlowRunSummary, *, succeeded: bool = True) -> None:
        # The ledger may have been unreachable after the POST. Unrecorded, the window would be ingested again.
        self._record_repetition(context, summary.flow_id, summary.window, summary.id, repeats=self.flow_run_id)
        super()._deliver(context, summary, succeeded=succeeded)


def _offset(offset: timedelta | None) -> timedelta | None:
    # Only a fixed length of time keeps the windows contiguous. A pendulum duration may also have months and years,
    # which it counts as 30 and 365 days.
    is_fixed = not (getattr(offset, "months", 0) or getattr(offset, "years", 0))
    if offset is None or (isinstance(offset, timedelta) and is_fixed):
        return offset
    raise ConfigurationError(
        f"window_offset is {offset!r}", remedy="use a timedelta, such as timedelta(hours=-6) for data six hours late"
    )
