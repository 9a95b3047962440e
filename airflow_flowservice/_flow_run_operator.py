# SPDX-License-Identifier: Apache-2.0
"""Create one flow run in a task, and optionally wait for it: the base of the operators."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from functools import cached_property, partial
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from airflow.sdk import BaseOperator

from airflow_flowservice._airflow import intent_variable, metrics, required_actions, task_context, task_end, versions
from airflow_flowservice._airflow.flow_run_task import (
    FlowRunTaskMixin,
    boolean,
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
    from collections.abc import Callable, Mapping, Sequence
    from datetime import timedelta

    from airflow.sdk import Context

    from airflow_flowservice.api.models import FlowRun
    from airflow_flowservice.hooks import FlowServiceHook
    from airflow_flowservice.runs.create_once import CreateOnce
    from airflow_flowservice.runs.intent import Order, Outcome
    from airflow_flowservice.runs.ledger_intents import LedgerPolicy
    from airflow_flowservice.runs.question import Answer, PersonNeededError, Question
    from airflow_flowservice.runs.summary import FlowRunSummary
    from airflow_flowservice.runs.watch import RunWatch

_ON_UNCERTAIN = ("fail", "adopt", "create", "ask")


class FlowRunOperator(FlowRunTaskMixin, BaseOperator):
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
        on_uncertain: Literal["fail", "adopt", "create", "ask"] = "fail",
        uncertain_patience: float = 180.0,
        ask_timeout: float | timedelta = 86400.0,
        ask_notifiers: Sequence[Callable[[Any], Any]] | Callable[[Any], Any] = (),
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
        self.wait_for_completion = boolean(wait_for_completion, name="wait_for_completion")
        default = versions.default_deferrable
        self.deferrable = boolean(default() if deferrable is None else deferrable, name="deferrable")
        self.poll_interval = positive_seconds(poll_interval, name="poll_interval")
        self.wait_timeout = None if wait_timeout is None else positive_seconds(wait_timeout, name="wait_timeout")
        self.uncertain_patience = positive_seconds(uncertain_patience, name="uncertain_patience")
        self._configure_asking(on_uncertain, timeout=ask_timeout, notifiers=ask_notifiers)
        self._rendered: tuple[Any, ...] | None = None
        self._overwrites_rendered_fields: bool | None = None
        self._created: FlowRunSummary | None = None
        self._is_creating = False
        self._answer: Answer | None = None

    def _configure_asking(self, on_uncertain: str, *, timeout: float | timedelta, notifiers: Any) -> None:
        """Validate and set the reaction to an unknown outcome, when the DAG file is parsed."""
        self.on_uncertain = one_of(on_uncertain, _ON_UNCERTAIN, name="on_uncertain")
        required_actions.require_support(self.on_uncertain)
        self.ask_timeout = positive_seconds(timeout, name="ask_timeout")
        self.ask_notifiers = required_actions.notifiers_of(notifiers)

    def execute(self, context: Context) -> str:
        """Create the flow run, or find the one of an earlier attempt. Optionally wait. Return the flow run id."""
        with task_end.task_errors():
            order = self._order(context)
            # The window of a flow run that is re-triggered is known when it has ended.
            if order.window or not self.wait_for_completion:
                task_context.require_partitions(context, self, order.window, waits=self.wait_for_completion)
            return self._ingest(context, order)

    def execute_after_answer(self, context: Context, event: Any, question: Any, order: Any) -> str:
        """Continue after a person answered which flow run is of the window, or after the time limit.

        :param question: JSON object of the question.
        :param order: JSON object of the order for which it was asked.
        :raises FlowRunUncertainError: the answer is `fail`, or there was none in time.
        """
        from airflow_flowservice.runs.intent import Order
        from airflow_flowservice.runs.question import Question

        with task_end.task_errors():
            asked, ordered = Question.from_json(question), Order.from_json(order)
            if asked is None:
                return self._ingest(context, self._order(context))
            self._restore_order(ordered)
            # This process sets the addresses of the links itself.
            self.was_deferred = False
            self._show_dataflow(context, self._hook.pages.dataflow(ordered.flow_id))
            with error_context(flow_id=ordered.flow_id, window=ordered.window):
                self._answer = self._accepted_answer(asked, event)
            return self._ingest(context, ordered)

    @classmethod
    def get_serialized_fields(cls) -> frozenset[str]:
        """Return the fields of the serialized DAG, with `continues`, which coverage reads there."""
        fields_of_airflow: Any = super().get_serialized_fields
        return frozenset({*fields_of_airflow(), "continues"})

    def render_template_fields(self, context: Context, jinja_env: Any = None) -> None:
        """Render the templates, and set the fields that are known before the task begins."""
        super().render_template_fields(context, jinja_env)
        if versions.supports_rerendered_fields():
            self._after_rendering(context)
        self._rendered = self._field_values

    def _after_rendering(self, context: Mapping[str, Any]) -> None:
        """Set the template fields that are known before the task begins."""

    @property
    def overwrite_rtif_after_execution(self) -> bool:
        """Return whether Airflow stores the rendered templates again at the end: if the task has changed a field.

        The task chooses its window, and shows it among them. Airflow renders a mapped task by another method.
        """
        if self._overwrites_rendered_fields is not None:
            return self._overwrites_rendered_fields
        return versions.supports_rerendered_fields() and self._rendered != self._field_values

    @overwrite_rtif_after_execution.setter
    def overwrite_rtif_after_execution(self, value: bool) -> None:
        self._overwrites_rendered_fields = value

    @property
    def _field_values(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name, None) for name in self.template_fields)

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

    def _restore_order(self, order: Order) -> None:
        """Set the fields that an earlier process of this task chose for its order."""

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

    def _ingest(self, context: Mapping[str, Any], order: Order) -> str:
        """Create the order's flow run, or find it. Optionally wait. Return its id."""
        with error_context(flow_id=order.flow_id, window=order.window):
            summary = self._create(context, order)
        if not self.wait_for_completion:
            return self._leave(context, summary)
        if summary.succeeded:
            return self._finish(context, summary)
        if self.deferrable and not self._is_nested(context):
            self._defer(context, summary)
        return self._wait(context, summary)

    def _leave(self, context: Mapping[str, Any], summary: FlowRunSummary) -> str:
        """End the task without waiting for its flow run, and return the flow run id."""
        if not summary.succeeded:
            self.log.info(
                "Flow run %s is created, and not ingested yet: this task does not wait for it. "
                "A FlowRunSensor, or wait_for_completion=True, waits",
                summary.id,
            )
        self._deliver(context, summary, succeeded=summary.succeeded)
        intent_variable.remove_after_success(context)
        self._add_outlet_event_extra(context, summary)
        return summary.id

    def _create(self, context: Mapping[str, Any], order: Order) -> FlowRunSummary:
        from airflow_flowservice.runs.summary import FlowRunSummary

        self._is_creating = True
        pages = self._hook.pages
        # A second start of this attempt is recognized by this XCom, so it is pushed before the POST.
        self._show_dataflow(context, pages.dataflow(order.flow_id))
        outcome = self._create_once(context, order)
        found = outcome.parts[-1] if outcome.parts else order
        summary = FlowRunSummary.of_new(
            outcome.flow_run_id,
            flow_id=found.flow_id,
            window=found.window,
            url=pages.flow_run(found.flow_id, outcome.flow_run_id),
        )
        if outcome.is_ingested:
            summary = replace(summary, status="success", output_records=outcome.output_records)
        self.log.info("Flow run %s %s for window %s: %s", summary.id, outcome.how, order.window, summary.url)
        self._created = summary
        self._show(context, summary)
        return summary

    def _create_once(self, context: Mapping[str, Any], order: Order) -> Outcome:
        from airflow_flowservice.runs.question import PersonNeededError

        create_once = self._creation(context, order)
        try:
            outcome = create_once(order)
        except FlowRunUncertainError:
            metrics.count("runs.uncertain")
            raise
        except PersonNeededError as needed:
            self._ask(context, order, needed)
        except WindowIngestedError as error:
            if getattr(self, "on_ingested", None) != "skip":
                raise
            error.remedy = None
            raise versions.airflow_exception("AirflowSkipException")(str(error)) from error
        metrics.count(f"runs.{outcome.how}")
        return outcome

    def _creation(self, context: Mapping[str, Any], order: Order) -> CreateOnce:
        from airflow_flowservice.runs.create_once import CreateOnce

        hook, ledger = self._hook, self._ledger_policy(context, order)
        return CreateOnce(
            service=hook.client,
            # The ledger also keeps the intent; the task's state is read for attempts of an earlier version.
            store=context.get("task_state_store") if ledger else intent_variable.state_store(context),
            attempt=task_context.attempt_of(context),
            ledger=ledger,
            check_flow=self.check_flow,
            shared_check=hook.flow_check if self.check_flow else None,
            # After a wait, Airflow would resume the task that executes this one.
            on_uncertain="fail" if self.on_uncertain == "ask" and self._is_nested(context) else self.on_uncertain,
            ask=partial(required_actions.show, ti=context["ti"], order=order),
            ask_timeout=self.ask_timeout,
            answer=self._answer,
            adopt=task_context.run_to_adopt(context),
            patience=self.uncertain_patience,
            error_budget=self._first_read_budget,
            clock_offset=lambda: hook.client.clock_offset,
            has_failed_batches=self._has_failed_batches,
            link=lambda flow_run_id: hook.pages.flow_run(order.flow_id, flow_run_id),
        )

    def _ask(self, context: Mapping[str, Any], order: Order, needed: PersonNeededError) -> NoReturn:
        """Wait for the answer to a question. Only the attempt that asks it notifies people."""
        if needed.is_new:
            metrics.count("runs.asked")
        required_actions.notify(self.ask_notifiers if needed.is_new else (), context)
        required_actions.wait(self, needed.question, is_new=needed.is_new, ti=context["ti"], order=order)

    def _can_fail_afterwards(self, context: Mapping[str, Any]) -> bool:
        is_overridden = task_end.is_overridden(self.execute, FlowRunOperator.execute)
        return is_overridden or super()._can_fail_afterwards(context)

    def _accepted_answer(self, question: Question, event: Any) -> Answer:
        """Return the answer to a question.

        :raises FlowRunUncertainError: it is `fail`, or there was none in time.
        """
        from airflow_flowservice.runs.question import REMEDY

        answer = question.answer(event)
        if not answer.fails:
            return answer
        metrics.count("runs.uncertain")
        raise FlowRunUncertainError(
            f"{answer}; a flow run may have been created, and the dataflow's new flow runs show no window: {question}",
            remedy=REMEDY,
        )

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
            window=str(summary.window) if summary.window else None,
            url=summary.url,
            ends_task=self._can_end_in_triggerer(),
            error_budget=self.error_budget,
            wait_for_batch=self.wait_for_batch,
            **self.tolerance.to_arguments(),
        )
        self._defer_to(trigger, context, flow_run_id=summary.id)

    def _wait(self, context: Mapping[str, Any], summary: FlowRunSummary) -> str:
        from airflow_flowservice.runs.watch import wait_for_end

        watch, get_run = self._watch(summary, timeout=self.wait_timeout), metrics.counted(self._hook.client.get_run)

        def read(flow_run_id: str, *, within_s: float | None = None) -> FlowRun:
            self._require_execution_time(watch)
            return get_run(flow_run_id, within_s=within_s)

        with error_context(flow_id=summary.flow_id, window=summary.window):
            try:
                run = wait_for_end(watch, read, self._read_batches)
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
        raise watch.timed_out(limit, seconds).about(flow_id=summary.flow_id, window=summary.window)

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


def one_of(value: Any, allowed: tuple[str, ...], *, name: str) -> Any:
    """Return the value of an argument.

    :raises ConfigurationError: the value is not allowed.
    """
    if value in allowed:
        return value
    raise ConfigurationError(f"{name} is {value!r}", remedy=f"use one of {allowed}")
