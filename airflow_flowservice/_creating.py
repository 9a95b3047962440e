"""The base of the operators: creates a flow run once, then waits for it as asked."""

from __future__ import annotations

from abc import abstractmethod
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from airflow.sdk import BaseOperator

from airflow_flowservice import _airflow, _context, _endings, _stats, _waiting
from airflow_flowservice.exceptions import ConfigurationError, FlowRunTimeoutError, FlowRunUncertainError, telling
from airflow_flowservice.links import DataflowLink, FlowRunLink

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

    from airflow.sdk import Context

    from airflow_flowservice.api.models import FlowRun
    from airflow_flowservice.hooks import FlowServiceHook
    from airflow_flowservice.ingestion.intent import Order
    from airflow_flowservice.ingestion.watching import RunWatch

_ON_UNCERTAIN = ("fail", "adopt", "create")


class CreatesFlowRun(BaseOperator):
    """Creates one flow run whatever fails, and waits for it if it is asked to."""

    operator_extra_links = (FlowRunLink(), DataflowLink())
    ui_color = "#fbe4e2"

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
        self.deferrable = _airflow.default_deferrable() if deferrable is None else deferrable
        self.poll_interval = _waiting.positive_seconds(poll_interval, name="poll_interval")
        self.wait_timeout = (
            None if wait_timeout is None else _waiting.positive_seconds(wait_timeout, name="wait_timeout")
        )
        self.error_budget = _waiting.positive_seconds(error_budget, name="error_budget")
        _waiting.tolerate(
            self, max_failed_records=max_failed_records, max_failed_ratio=max_failed_ratio, on_empty=on_empty
        )
        self.on_uncertain = on_uncertain
        self.uncertain_patience = _waiting.positive_seconds(uncertain_patience, name="uncertain_patience")
        self.flowservice_conn_id = flowservice_conn_id
        # So that what a task found out, such as its window, shows among its rendered templates.
        self.overwrite_rtif_after_execution = _airflow.takes_rendered_fields_again()
        self._flow_run: dict[str, Any] | None = None
        self._is_creating = False
        self.flow_run_summary: dict[str, Any] | None = None
        self.flow_run_url: str | None = None
        self.dataflow_url: str | None = None
        self.was_deferred = False

    def execute(self, context: Context) -> str:
        """Create the run, or find the one of an earlier attempt; then wait if asked to. The run's id."""
        with _endings.task_errors():
            hook = self._hook()
            order = self._order(context, hook)
            with telling(flow_id=order.flow_id, window=str(order.window) if order.window else None):
                summary = self._create(context, hook, order)
            if not self.wait_for_completion:
                _waiting.tell_outlets(self, context, summary)
                return str(summary["id"])
            if self.deferrable:
                self._defer(context, summary)
            return self._wait(context, hook, summary)

    def execute_complete(self, context: Context, event: Any) -> str:
        """End the task with what the trigger saw. The run's id.

        :raises FlowRunFailedError: the run failed.
        """
        with _endings.task_errors():
            summary = _waiting.summary_from_event(context, event)
            self._recall(summary)
            return _waiting.finish(self, context, summary)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """As `BaseOperator.resume_execution`; after a time limit, the run is looked at once more.

        :raises FlowRunTimeoutError: it goes on.
        """
        if _waiting.is_another_attempts(context, next_kwargs):
            return self.execute(context)
        self.was_deferred = True
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except _airflow.airflow_exception("TaskDeferralTimeout"):
            with _endings.task_errors():
                return self._end_after_limit(context)

    def on_kill(self) -> None:
        """Say that the run goes on; Adobe cannot cancel it."""
        if self._flow_run:
            _waiting.say_that_it_goes_on(self._flow_run["id"], self._flow_run["url"])
        elif self._is_creating:
            self.log.warning(
                "Killed before a flow run was known. If one was created, it goes on, since Adobe cannot cancel it; the "
                "next attempt looks for it first."
            )

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:
        """What the flow run read and wrote, for Airflow's OpenLineage listener; also when the task failed."""
        from airflow_flowservice.openlineage import lineage_of

        return lineage_of(self, task_instance)

    get_openlineage_facets_on_failure = get_openlineage_facets_on_complete

    @abstractmethod
    def _order(self, context: Mapping[str, Any], hook: FlowServiceHook) -> Order:
        """What the task wants."""

    def _recall(self, summary: Mapping[str, Any]) -> None:
        """Take up again what the process before this one found out."""

    def _prepare(self, order: Order, hook: FlowServiceHook) -> Order:
        """A last look before anything is created."""
        return order

    def _hook(self) -> FlowServiceHook:
        from airflow_flowservice.hooks import FlowServiceHook

        return FlowServiceHook(self.flowservice_conn_id)

    def _create(self, context: Mapping[str, Any], hook: FlowServiceHook, order: Order) -> dict[str, Any]:
        from airflow_flowservice.ingestion.create_once import CreateOnce
        from airflow_flowservice.ingestion.outcome import summary_of_new

        self._is_creating = True

        def url(flow_run_id: str) -> str:
            return hook.run_url(flow_id=order.flow_id, flow_run_id=flow_run_id)

        _waiting.show_dataflow(self, context, hook.run_url(flow_id=order.flow_id))
        create_once = CreateOnce(
            service=hook.client,
            store=_context.state_store(context),
            attempt=_context.attempt_of(context),
            on_uncertain=self.on_uncertain,
            adopt=_context.run_to_adopt(context),
            patience=self.uncertain_patience,
            clock_offset=lambda: hook.client.clock_offset,
            prepare=lambda order: self._prepare(order, hook),
            link=url,
        )
        try:
            outcome = create_once(order)
        except FlowRunUncertainError:
            _stats.count("runs.uncertain")
            raise
        _stats.count(f"runs.{outcome.how}")
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
        _waiting.note_attempt(context)
        self.defer(
            trigger=FlowRunTrigger(
                flow_run_id=summary["id"],
                flowservice_conn_id=self.flowservice_conn_id,
                poll_interval=self.poll_interval,
                flow_id=summary["flow_id"],
                window=window_text(summary),
                url=summary["url"],
                ends_task=_endings.ends_in_triggerer(self),
                error_budget=self.error_budget,
                **_waiting.tolerance_of(self),
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

    def _wait(self, context: Mapping[str, Any], hook: FlowServiceHook, summary: dict[str, Any]) -> str:
        from airflow_flowservice.ingestion.outcome import window_text
        from airflow_flowservice.ingestion.watching import wait_for_end

        watch = self._watch(summary, timeout=self.wait_timeout)
        with telling(flow_id=summary["flow_id"], window=window_text(summary)):
            try:
                run = wait_for_end(watch, _stats.counted(hook.client.get_run))
            except _airflow.airflow_exception("AirflowTaskTimeout") as error:
                raise watch.timed_out("execution_timeout", self._limits["execution_timeout"]) from error
        return self._finish(context, summary, run)

    def _end_after_limit(self, context: Mapping[str, Any]) -> str:
        """A last look: a run that has ended by now ends the task, whatever the triggerer was busy with."""
        from airflow_flowservice.ingestion.outcome import window_text

        limit, seconds = min(self._limits.items(), key=itemgetter(1), default=("its time limit", None))
        summary = _context.read_xcom(context["ti"], key=_context.FLOW_RUN_KEY)
        if not summary:
            raise FlowRunTimeoutError(
                f"{limit} is over, and what the task pushed of its flow run is not there any more"
            )
        self._recall(summary)
        watch = self._watch(summary)
        run = watch.last_look(lambda flow_run_id: self._hook().client.get_run(flow_run_id))
        if run is not None:
            return self._finish(context, summary, run)
        raise watch.timed_out(limit, seconds).about(flow_id=summary["flow_id"], window=window_text(summary))

    def _watch(self, summary: Mapping[str, Any], *, timeout: float | None = None) -> RunWatch:
        from airflow_flowservice.ingestion.watching import RunWatch

        return RunWatch(
            flow_run_id=summary["id"],
            poll_interval=self.poll_interval,
            timeout=timeout,
            error_budget=self.error_budget,
            url=summary["url"],
        )

    def _finish(self, context: Mapping[str, Any], summary: Mapping[str, Any], run: FlowRun) -> str:
        from airflow_flowservice.ingestion.outcome import summary_of

        asked = {name: summary[name] for name in ("flow_id", "window_start", "window_end")}
        return _waiting.finish(self, context, {**summary_of(run, url=summary["url"]), **asked})
