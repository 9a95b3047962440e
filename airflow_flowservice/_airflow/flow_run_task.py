# SPDX-License-Identifier: Apache-2.0
"""Base of the operators and the sensor: parameters, links, deferral and the end of a task for a flow run.

DAG files import this module, so it imports nothing heavy.
"""

from __future__ import annotations

import logging
import shlex
from abc import abstractmethod
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from airflow.sdk import BaseOperator

from airflow_flowservice._airflow import metrics, task_context, task_end, versions
from airflow_flowservice._airflow.pages import dataflow_page
from airflow_flowservice._airflow.task_context import DATAFLOW_KEY, URL_KEY
from airflow_flowservice._airflow.tolerance import Tolerance
from airflow_flowservice.exceptions import (
    ConfigurationError,
    FlowRunEmptyError,
    FlowRunError,
    FlowRunFailedError,
    FlowRunIncompleteError,
    FlowServiceError,
    from_dict,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from airflow.sdk import Context
    from airflow.triggers.base import BaseTrigger

    from airflow_flowservice.runs.batch_watch import ReadBatches
    from airflow_flowservice.runs.summary import FlowRunSummary
    from airflow_flowservice.runs.watch import RunWatch

    _Task = BaseOperator
else:
    # At runtime, a base class here would come before `BaseSensorOperator`, and hide its constructor.
    _Task = object

log = logging.getLogger(__name__)

_ATTEMPT_KEY = "flowservice_attempt"
_LOST_ALARM_S = 1.0
"""Seconds after `execution_timeout` from which on Airflow's alarm for it counts as lost."""


class FlowRunTaskMixin(_Task):
    """Task for one flow run.

    The links read `flow_run_url`, `dataflow_url` and `was_deferred`; the OpenLineage facets read `flow_run_summary`.
    """

    ui_color = "#fbe4e2"

    # False for a sensor: it does not deliver the success of the task that created the flow run.
    _creates_flow_run: ClassVar[bool] = True

    # Errors after which a retry of this task cannot help, although they are retryable.
    _final_errors: ClassVar[tuple[type[FlowServiceError], ...]] = ()
    # Remedies of this task, instead of the default ones.
    _remedies: ClassVar[Mapping[type[FlowServiceError], str]] = {}

    flow_run_summary: FlowRunSummary | None = None
    flow_run_url: str | None = None
    dataflow_url: str | None = None
    was_deferred: bool = False

    def execute_complete(self, context: Context, event: Any) -> str:
        """End the task with the result in the trigger's event, and return the flow run id.

        :raises FlowRunFailedError: the flow run failed.
        """
        with task_end.task_errors(*self._final_errors):
            return self._finish(context, _summary_from_event(context, event))

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume as `BaseOperator.resume_execution`. After a time limit, first read the flow run again.

        :raises FlowRunTimeoutError: the flow run continues.
        """
        if _belongs_to_earlier_attempt(context, next_kwargs):
            return self.execute(context)
        self.was_deferred = True
        self._resume(context)
        with self._skips():
            try:
                return BaseOperator.resume_execution(self, next_method, next_kwargs, context)
            except versions.airflow_exception("TaskDeferralTimeout"):
                with task_end.task_errors(*self._final_errors):
                    return self._end_after_limit(context)

    @property
    @abstractmethod
    def _hook(self) -> Any:
        """Return the `FlowServiceHook` of the connection."""

    @property
    @abstractmethod
    def _wait_limit(self) -> tuple[str, float | None]:
        """Return the name and the seconds of the task's own time limit for waiting."""

    @abstractmethod
    def _end_after_limit(self, context: Context) -> str:
        """Read the flow run after a time limit in the triggerer. If it has ended, end the task with its result.

        :raises FlowRunTimeoutError: the flow run continues.
        """

    def _resume(self, context: Mapping[str, Any]) -> None:
        """Restore what the process that deferred the task has pushed."""

    def _skips(self) -> AbstractContextManager[None]:
        """Return a context that turns errors into skips."""
        return nullcontext()

    def _configure(
        self,
        *,
        error_budget: float | timedelta,
        max_failed_records: int | None,
        max_failed_ratio: float | None,
        on_empty: str,
        wait_for_batch: bool,
        flowservice_conn_id: str,
    ) -> None:
        """Validate and set the parameters that all tasks share, when the DAG file is parsed."""
        self.error_budget = positive_seconds(error_budget, name="error_budget")
        self.tolerance = Tolerance.of_task(
            max_failed_records=max_failed_records, max_failed_ratio=max_failed_ratio, on_empty=on_empty
        )
        self.wait_for_batch = boolean(wait_for_batch, name="wait_for_batch")
        self.flowservice_conn_id = flowservice_conn_id

    @property
    def _read_batches(self) -> ReadBatches | None:
        """Return a function that reads batches of the catalogue; None if the task does not wait for them."""
        if not self.wait_for_batch:
            return None
        from airflow_flowservice.runs.batch_watch import CatalogReader

        def list_batches(ids: Any, **limit: Any) -> Any:
            return self._hook.client.list_batches(ids, **limit)

        return CatalogReader(metrics.counted(list_batches)).read

    @property
    def _limits(self) -> dict[str, float]:
        """Return the seconds of each time limit that is set, by name."""
        execution_timeout = None if self.execution_timeout is None else self.execution_timeout.total_seconds()
        limits = (self._wait_limit, ("execution_timeout", execution_timeout))
        return {name: seconds for name, seconds in limits if seconds is not None}

    def _require_execution_time(self, watch: RunWatch) -> None:
        """Return if `execution_timeout` is not over.

        Airflow's alarm raises `AirflowTaskTimeout` once, at any line. Python ignores it in a callback of a weak
        reference, and without this check the task would then wait without a limit.

        :raises AirflowTaskTimeout: the alarm was lost.
        """
        limit = self._limits.get("execution_timeout")
        if limit is not None and watch.age >= limit + _LOST_ALARM_S:
            raise versions.airflow_exception("AirflowTaskTimeout")(f"execution_timeout, {limit:g} seconds, is over")

    def _show(self, context: Mapping[str, Any], summary: FlowRunSummary) -> None:
        """Push the summary of the flow run, and the addresses of the links."""
        self.flow_run_summary = summary
        context["ti"].xcom_push(key=task_context.FLOW_RUN_KEY, value=summary.to_json())
        self._show_page(context, summary.url)

    def _show_page(self, context: Mapping[str, Any], url: str | None) -> None:
        """Push the page of the flow run, so that the links work while the task waits."""
        if url is None:
            return
        self._show_dataflow(context, dataflow_page(url))
        self._push_link(context, URL_KEY, url)

    def _show_dataflow(self, context: Mapping[str, Any], url: str) -> None:
        """Push the page of the dataflow for its link."""
        self._push_link(context, DATAFLOW_KEY, url)

    def _push_link(self, context: Mapping[str, Any], key: str, url: str) -> None:
        """Push the address of a link, unless this task has pushed it already.

        Airflow pushes the address of each link again when the process ends. A link whose address is pushed is therefore
        removed from the links of this process, unless Airflow would push another address. A resumed sensor keeps its
        links, because the triggerer's event has its address.
        """
        known, ti = getattr(self, key), context["ti"]
        setattr(self, key, url)
        is_pushed_before_deferral = self.was_deferred and self._creates_flow_run and known is None
        if url != known and not is_pushed_before_deferral:
            ti.xcom_push(key=key, value=url)
        if self._creates_flow_run or not self.was_deferred:
            self.operator_extra_links = [
                link
                for link in self.operator_extra_links
                if not is_link(link, key=key) or link.get_link(self, ti_key=ti) != url
            ]

    def _finish(self, context: Mapping[str, Any], summary: FlowRunSummary) -> str:
        """End the task with the result of its flow run, and return the flow run id.

        The XComs are pushed before the task fails or is skipped, so that callbacks and later tasks can read them.

        :raises FlowRunFailedError: the flow run failed.
        :raises FlowRunOutcomeUnknownError: the flow run ended without a status.
        :raises FlowRunBatchFailedError: the batches of the flow run failed.
        :raises FlowRunIncompleteError: more records failed than the task allows.
        :raises FlowRunEmptyError: there were no records, and `on_empty` is `fail`.
        :raises AirflowSkipException: there were no records, and `on_empty` is `skip`.
        """
        self._show(context, summary)
        with self._ending(context, summary):
            summary.require_success()
            self.tolerance.require(summary)
        log.info(summary.describe())
        self._deliver(context, summary)
        self._add_outlet_event_extra(context, summary)
        self._log_errors(summary)
        return summary.id

    @contextmanager
    def _ending(self, context: Mapping[str, Any], summary: FlowRunSummary) -> Iterator[None]:
        """Add remedies to an error of the flow run, and push the return value. Turn the error into a skip if required.

        :raises AirflowSkipException: there were no records, and `on_empty` is `skip`.
        """
        try:
            yield
        except FlowRunError as error:
            self._push_return_value(context, summary.id)
            error.remedy = self._remedies.get(type(error), error.remedy)
            if isinstance(error, FlowRunFailedError | FlowRunIncompleteError):
                command = failed_records_command(summary.id, conn_id=self.flowservice_conn_id)
                error.remedy = f"{error.remedy}. To see which rows failed, and why, run: {command}"
            if summary.has_copy_error:
                error.remedy = f"{self._source_test(summary)}; {error.remedy}"
            is_skipped = isinstance(error, FlowRunEmptyError) and self.tolerance.on_empty == "skip"
            if isinstance(error, FlowRunEmptyError | FlowRunIncompleteError):
                # The user knows the result, so a clear afterwards requests the window again.
                self._deliver(context, summary, succeeded=is_skipped)
            if is_skipped:
                error.remedy = None
                raise versions.airflow_exception("AirflowSkipException")(str(error)) from error
            raise

    def _log_errors(self, summary: FlowRunSummary) -> None:
        """Log the errors that a succeeded flow run reports."""
        for text in summary.error_texts:
            log.warning("Flow run %s reports %s", summary.id, text)

    def _deliver(self, context: Mapping[str, Any], summary: FlowRunSummary, *, succeeded: bool = True) -> None:
        """Record in the ledger that this task ended with the flow run.

        :param succeeded: whether the flow run is known to have ingested the window.
        """
        owner = task_context.owner_of(context) if self._creates_flow_run else None
        if owner is None or not self._can_fail_afterwards(context):
            self._record(summary, owner=owner, succeeded=succeeded)
            return
        # If the task fails afterwards, a clear must accept the flow run.
        self._record(summary, owner=None, succeeded=succeeded)
        task_end.call_after_success(context, lambda _: self._record(summary, owner=owner, succeeded=succeeded))

    def _can_fail_afterwards(self, context: Mapping[str, Any]) -> bool:
        """Return whether another task, or a subclass, executes more after the flow run's success."""
        return self._is_nested(context)

    def _record(self, summary: FlowRunSummary, *, owner: str | None, succeeded: bool = True) -> None:
        """Record the result of a flow run in the ledger.

        :param owner: the task instance if it ends with the flow run, else None.
        """
        from airflow_flowservice.runs.ledger_intents import deliver

        if summary.flow_id is None or summary.window is None or (ledger := self._hook.ledger) is None:
            return
        deliver(
            ledger,
            dataflow=self._hook.dataflow_key(summary.flow_id),
            window=summary.window,
            flow_run_id=summary.id,
            owner=owner,
            output_records=summary.output_records,
            succeeded=succeeded,
        )

    def _source_test(self, summary: FlowRunSummary) -> str:
        """Return the remedy that names the command that tests the source's credential."""
        command = f"{versions.command_program()} check --conn-id {shlex.quote(str(self.flowservice_conn_id))}"
        flow = f" --flow-id {shlex.quote(summary.flow_id)}" if summary.flow_id else ""
        return f"test the source's connection, whose credential may have expired, with `{command}{flow}`"

    def _add_outlet_event_extra(self, context: Mapping[str, Any], summary: FlowRunSummary) -> None:
        """Add window, flow run and known counts to the events of the outlets.

        A DAG that such an asset triggers uses the window of the event.
        """
        ingested = summary.window if summary.succeeded else None
        task_context.add_outlet_event_extra(context, self, summary.event_facts(), ingested=ingested)

    def _defer_to(self, trigger: BaseTrigger, context: Mapping[str, Any], *, flow_run_id: str) -> NoReturn:
        """Defer the task until the trigger fires, or until the shortest time limit is over."""
        # The trigger may end the task, and does not push the return value.
        self._push_return_value(context, flow_run_id)
        if versions.retries_resume_after_deferral():
            context["ti"].xcom_push(key=_ATTEMPT_KEY, value=context["ti"].try_number)
        seconds = min(self._limits.values(), default=None)
        timeout = None if seconds is None else timedelta(seconds=seconds)
        self.defer(trigger=trigger, method_name="execute_complete", timeout=timeout)

    def _push_return_value(self, context: Mapping[str, Any], flow_run_id: str) -> None:
        if self.do_xcom_push:
            context["ti"].xcom_push(key="return_value", value=flow_run_id)

    def _can_end_in_triggerer(self) -> bool:
        """Return whether a trigger may end this task as a success without a worker."""
        if not versions.supports_end_in_triggerer() or self._must_end_on_worker():
            return False
        return not task_end.has_listeners()

    def _is_nested(self, context: Mapping[str, Any]) -> bool:
        """Return whether another task calls `execute`. After a deferral, Airflow would resume that task."""
        task = context["task"]
        return task.task_id != self.task_id or not isinstance(task, FlowRunTaskMixin)

    def _must_end_on_worker(self) -> bool:
        """Return whether a subclass, or what Airflow does for this task only on a worker, needs a worker at the end."""
        return (
            task_end.is_overridden(self.execute_complete, FlowRunTaskMixin.execute_complete)
            or task_end.is_overridden(self.resume_execution, FlowRunTaskMixin.resume_execution)
            or task_end.must_end_on_worker(self)
        )


def failed_records_command(flow_run_id: str, *, conn_id: str) -> str:
    """Return the command that shows the failed rows of a flow run, for this version of Airflow."""
    arguments = f"--flow-run-id {shlex.quote(flow_run_id)} --conn-id {shlex.quote(conn_id)}"
    return f"{versions.command_program()} failed-records {arguments}"


def log_run_continues(flow_run_id: str, url: str | None) -> None:
    """Log for a killed task that its flow run continues."""
    log.warning(
        "Adobe cannot cancel flow run %s, so it continues; see %s. The next attempt of this task waits for it.",
        flow_run_id,
        url or "Experience Platform",
    )


def positive_seconds(value: float | timedelta, *, name: str) -> float:
    """Return the value in seconds.

    :raises ConfigurationError: it is not a positive number.
    """
    seconds = value if isinstance(value, int | float) else getattr(value, "total_seconds", lambda: None)()
    if seconds is None or isinstance(value, bool) or not 0 < seconds < float("inf"):
        raise ConfigurationError(f"{name} is {value!r}", remedy=f"set {name} to a positive number of seconds")
    return float(seconds)


def boolean(value: Any, *, name: str) -> bool:
    """Return the value of an argument.

    :raises ConfigurationError: it is no boolean, such as a template or the text `False`, which counts as true.
    """
    if isinstance(value, bool):
        return value
    raise ConfigurationError(f"{name} is {value!r}", remedy="use True or False; this argument cannot be a template")


def is_link(link: Any, *, key: str) -> bool:
    """Return whether a link of a task is the one of this package that reads the address from this XCom."""
    return getattr(link, "xcom_key", None) == key and type(link).__module__ == "airflow_flowservice.links"


def pushed_summary(context: Mapping[str, Any]) -> FlowRunSummary | None:
    """Return the summary that the task pushed before it deferred, or None if it cannot be read."""
    from airflow_flowservice.runs.summary import FlowRunSummary

    return FlowRunSummary.from_json(task_context.read_xcom(context["ti"], key=task_context.FLOW_RUN_KEY))


def _summary_from_event(context: Mapping[str, Any], event: Any) -> FlowRunSummary:
    """Return the summary of a trigger's event.

    If a trigger ended the task, `dag.test()` passes only its state; the summary is then in the XCom.

    :raises FlowServiceError: the error of the trigger, or the summary cannot be read.
    """
    from airflow_flowservice.runs.summary import FlowRunSummary

    if isinstance(event, dict) and "error" in event:
        raise from_dict(event["error"])
    summary = FlowRunSummary.from_json(event.get("flow_run")) if isinstance(event, dict) else pushed_summary(context)
    if summary is None:
        raise FlowServiceError(
            "the result of the flow run cannot be read from the trigger's event or the XCom flow_run",
            remedy="clear the task",
        )
    return summary


def _belongs_to_earlier_attempt(context: Mapping[str, Any], next_kwargs: Mapping[str, Any] | None) -> bool:
    """Return whether Airflow resumes this attempt with the failure of an earlier one, so that it must start again.

    A success event is valid for any attempt.
    """
    if not versions.retries_resume_after_deferral() or _is_success((next_kwargs or {}).get("event")):
        return False
    deferred = task_context.read_xcom(context["ti"], key=_ATTEMPT_KEY)
    if deferred in (None, context["ti"].try_number):
        return False
    log.warning("Airflow resumes attempt %s of this task instead of starting a new one; starting it", deferred)
    return True


def _is_success(event: Any) -> bool:
    from airflow_flowservice.runs.summary import FlowRunSummary

    summary = FlowRunSummary.from_json(event.get("flow_run")) if isinstance(event, dict) else None
    return summary is not None and summary.succeeded
