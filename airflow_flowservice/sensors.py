# SPDX-License-Identifier: Apache-2.0
"""Wait in a sensor for a flow run of Adobe Flow Service."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from airflow.sdk import BaseSensorOperator, PokeReturnValue

from airflow_flowservice._airflow import metrics, task_context, task_end, trigger_start, versions
from airflow_flowservice._airflow.flow_run_task import FlowRunTaskMixin, boolean, log_run_continues
from airflow_flowservice._airflow.task_context import URL_KEY
from airflow_flowservice.exceptions import (
    ConfigurationError,
    FlowRunBatchFailedError,
    FlowRunEmptyError,
    FlowRunFailedError,
    FlowRunIncompleteError,
    FlowRunOutcomeUnknownError,
    FlowServiceError,
)
from airflow_flowservice.links import DataflowLink, FlowRunLink

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager
    from datetime import timedelta

    from airflow.sdk import Context

    from airflow_flowservice.api.models import FlowRun
    from airflow_flowservice.hooks import FlowServiceHook
    from airflow_flowservice.runs.watch import RunWatch

_STORE_KEY = "flowservice_status"
_RUN_ID_SOURCE = "the creating task's output"
_FAILED_REMEDY = (
    "read the flow run's errors; then clear the task that created the flow run, which creates a new one for the "
    "window, or repeat the flow run with RetriggerFlowRunOperator (a retry of the sensor waits for the same flow run)"
)
_OUTCOME_UNKNOWN_REMEDY = (
    "check in Experience Platform whether the window is ingested; then mark the task as success, or clear the task "
    "that created the flow run, which creates a new one for the window (a retry of the sensor reads this one again)"
)
_INCOMPLETE_REMEDY = (
    "check the failed records in Experience Platform, then mark the task as success, or raise the limit and clear "
    "this task, which checks the same flow run again"
)
_EMPTY_REMEDY = (
    "if the source had no data for the window, mark the task as success; otherwise clear the task that created the "
    "flow run when the data is there, which creates a new flow run for the window"
)
_TIMEOUT_REMEDY = "raise timeout, then clear this task: it waits for the same run, which continues at Adobe"

_BATCH_FAILED_REMEDY = (
    "read the batch's errors; then clear the task that created the flow run, which creates a new one for the window "
    "(a retry of the sensor reads the same batch)"
)
_REMEDIES: dict[type[FlowServiceError], str] = {
    FlowRunFailedError: _FAILED_REMEDY,
    FlowRunOutcomeUnknownError: _OUTCOME_UNKNOWN_REMEDY,
    FlowRunBatchFailedError: _BATCH_FAILED_REMEDY,
    FlowRunIncompleteError: _INCOMPLETE_REMEDY,
    FlowRunEmptyError: _EMPTY_REMEDY,
}


class FlowRunSensor(FlowRunTaskMixin, BaseSensorOperator):
    """Wait until a flow run has ended. The sensor never creates a flow run, so a retry only waits again.

    :param flow_run_id: id of the flow run, usually `create.output` of an `OnDemandFlowRunOperator`; templated.
    :param poke_interval: seconds between two polls of the flow run, in every mode.
    :param deferrable: wait in the triggerer; default: Airflow's `[operators] default_deferrable`.
    :param error_budget: seconds (or `timedelta`) without a valid response after which waiting ends.
    :param max_failed_records: maximum number of failed records, as for `OnDemandFlowRunOperator`.
    :param max_failed_ratio: maximum share of failed records, 0 to 1.
    :param on_empty: result of the task if the flow run has no records: `succeed`, `skip` or `fail`.
    :param wait_for_batch: accept a success only when the flow run's batches are `success` in the catalogue.
    :param start_from_trigger: start in the triggerer, without a worker process unless the flow run fails (Airflow 3.3
        and later). Earlier, in mapped sensors, and if only a worker can render `flow_run_id`, the wait starts on a
        worker. Implies `deferrable`.
    :param flowservice_conn_id: id of a connection of type `flowservice`; templated.

    `mode`, `timeout`, `soft_fail` and the other parameters are those of Airflow's `BaseSensorOperator`, with the same
    meaning in every mode. `timeout` is final (clear the task to continue), `execution_timeout` is retried. `soft_fail`
    skips on both and on a failed flow run, `never_fail` on any error.

    Return the flow run id, and push the XCom `flow_run` (its keys are on the page Operators and sensor).

    :raises FlowRunFailedError: the flow run failed; not retried, since waiting again cannot help.
    :raises FlowRunOutcomeUnknownError: the flow run ended without a status; a retry reads it again.
    :raises FlowRunBatchFailedError: the flow run's batches failed; not retried.
    :raises FlowRunIncompleteError: more records failed than the task allows; not retried.
    :raises FlowRunEmptyError: there were no records, and `on_empty` is `fail`; not retried.
    :raises FlowRunVanishedError: the flow run could be read before, and does not exist any more.
    :raises FlowRunTimeoutError: a time limit is over, and the flow run continues.
    """

    template_fields: Sequence[str] = ("flow_run_id", "flowservice_conn_id")
    operator_extra_links = (FlowRunLink(), DataflowLink())
    _final_errors = (FlowRunFailedError, FlowRunBatchFailedError)
    _remedies = _REMEDIES

    _creates_flow_run = False

    def __init__(
        self,
        *,
        flow_run_id: str,
        deferrable: bool | None = None,
        poke_interval: Any = 30.0,
        error_budget: float | timedelta = 1800.0,
        max_failed_records: int | None = None,
        max_failed_ratio: float | None = None,
        on_empty: Literal["succeed", "skip", "fail"] = "succeed",
        wait_for_batch: bool = False,
        start_from_trigger: bool = False,
        flowservice_conn_id: str = "flowservice_default",
        **kwargs: Any,
    ) -> None:
        with task_end.constructor_errors(self, flow_run_id=flow_run_id):
            super().__init__(poke_interval=poke_interval, **kwargs)
            self.flow_run_id = flow_run_id
            is_alone = boolean(start_from_trigger, name="start_from_trigger")
            if deferrable is None:
                deferrable = is_alone or versions.default_deferrable()
            self.deferrable = boolean(deferrable, name="deferrable")
            self._configure(
                error_budget=error_budget,
                max_failed_records=max_failed_records,
                max_failed_ratio=max_failed_ratio,
                on_empty=on_empty,
                wait_for_batch=wait_for_batch,
                flowservice_conn_id=flowservice_conn_id,
            )
            self._watch: RunWatch | None = None
            if is_alone:
                self._start_from_trigger()

    def _start_from_trigger(self) -> None:
        if not self.deferrable:
            raise ConfigurationError("start_from_trigger=True and deferrable=False exclude each other")
        if not trigger_start.can_start_in_triggerer(self):
            return
        flow_run_id = trigger_start.as_template(self.flow_run_id)
        fields = (flow_run_id, self.flowservice_conn_id)
        if self._must_start_on_worker() or not all(map(trigger_start.can_render_in_triggerer, fields)):
            return
        self.start_from_trigger = True
        self.start_trigger_args = trigger_start.start_trigger_args(
            trigger="airflow_flowservice.triggers.FlowRunTrigger",
            arguments={
                "flow_run_id": flow_run_id,
                "flowservice_conn_id": self.flowservice_conn_id,
                "poll_interval": self._poll_interval,
                "ends_task": not self._must_end_on_worker(),
                "is_alone": True,
                "error_budget": self.error_budget,
                # A triggerer of an earlier version does not know the argument.
                **({"wait_for_batch": True} if self.wait_for_batch else {}),
                **self.tolerance.to_arguments(),
            },
            next_method="execute_complete",
            timeout=min(self._limits.values()),
        )

    def _must_start_on_worker(self) -> bool:
        return (
            task_end.is_overridden(self.execute, FlowRunSensor.execute)
            or task_end.is_overridden(self.poke, FlowRunSensor.poke)
            or task_end.must_start_on_worker(self)
        )

    def execute(self, context: Context) -> Any:
        """Wait as `BaseSensorOperator.execute`. Errors that end the wait have the flow run's id.

        :raises FlowRunTimeoutError: a time limit is over: `timeout` is final, `execution_timeout` is retried.
        """
        skip = versions.airflow_exception("AirflowSkipException")
        limits = (versions.airflow_exception("AirflowSensorTimeout"), versions.airflow_exception("AirflowTaskTimeout"))
        with self._skips():
            try:
                return super().execute(context)
            except skip as skipped:
                raise skip(str(self._reason(context, skipped.__cause__))) from skipped.__cause__
            except limits as error:
                raise self._reason(context, error) from error

    def poke(self, context: Context) -> PokeReturnValue | bool:
        """Read the flow run once. If it has not ended and the sensor is deferrable, continue in the triggerer."""
        from airflow_flowservice.runs.summary import FlowRunSummary

        # The first poll is also here, so that Airflow applies `soft_fail` and similar parameters to it.
        with task_end.task_errors(*self._final_errors):
            watch = self._watching(context)
            self._require_execution_time(watch)
            run = watch.poll(metrics.counted(self._hook.client.get_run), self._read_batches)
            watch.url = self._url(watch.last) or watch.url
            self._remember(context, watch)
            self._show_page(context, watch.url)
            if run is None:
                if self.deferrable and not self._is_nested(context):
                    self._defer(context)
                return False
            return PokeReturnValue(True, xcom_value=self._finish(context, FlowRunSummary.of(run, url=watch.url)))

    def on_kill(self) -> None:
        """Log that the flow run continues, because Adobe cannot cancel it."""
        log_run_continues(self.flow_run_id, self.flow_run_url)

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:
        """Return the datasets of the flow run, for Airflow's OpenLineage listener; also if the task failed."""
        from airflow_flowservice.openlineage import lineage_of

        return lineage_of(self, task_instance)

    get_openlineage_facets_on_failure = get_openlineage_facets_on_complete

    @property
    def _wait_limit(self) -> tuple[str, float | None]:
        return "timeout", self.timeout

    @property
    def _poll_interval(self) -> float:
        return self.poke_interval or 1.0

    def _skips(self) -> AbstractContextManager[None]:
        return task_end.skips(soft_fail=self.soft_fail, never_fail=self.never_fail)

    def _reason(self, context: Context, error: BaseException | None) -> BaseException:
        """Return the error that ended the wait, with the flow run; Airflow's time limits have none.

        :param error: Airflow's error; None if `soft_fail` skipped the task after `timeout`.
        """
        if isinstance(error, versions.airflow_exception("AirflowTaskTimeout")):
            return self._timed_out(self._watching(context), "execution_timeout")
        if error is None or isinstance(error, versions.airflow_exception("AirflowSensorTimeout")):
            return self._timed_out(self._watching(context), "timeout")
        return error

    def _timed_out(self, watch: RunWatch, limit: str) -> FlowServiceError:
        """Return the error of a time limit: as in Airflow, `timeout` is final and `execution_timeout` is retried."""
        error = watch.timed_out(limit, self._limits[limit])
        if limit == "execution_timeout":
            return error
        error.remedy = _TIMEOUT_REMEDY
        return task_end.as_sensor_timeout(error)

    def _end_after_limit(self, context: Context) -> str:
        from airflow_flowservice.runs.summary import FlowRunSummary

        watch = self._watching(context)
        run = watch.poll_after_limit(
            lambda flow_run_id, **limit: self._hook.client.get_run(flow_run_id, **limit), self._read_batches
        )
        watch.url = self._url(watch.last) or task_context.read_xcom(context["ti"], key=URL_KEY)
        if run is not None:
            return self._finish(context, FlowRunSummary.of(run, url=watch.url))
        raise self._timed_out(watch, min(self._limits, key=self._limits.__getitem__))

    def _defer(self, context: Context) -> NoReturn:
        from airflow_flowservice.triggers import FlowRunTrigger

        last = self._watching(context).last
        trigger = FlowRunTrigger(
            flow_run_id=self.flow_run_id,
            flowservice_conn_id=self.flowservice_conn_id,
            poll_interval=self._poll_interval,
            flow_id=last.flow_id if last else None,
            url=self._url(last),
            seen=last is not None,
            ends_task=self._can_end_in_triggerer(),
            error_budget=self.error_budget,
            wait_for_batch=self.wait_for_batch,
            **self.tolerance.to_arguments(),
        )
        self._defer_to(trigger, context, flow_run_id=self.flow_run_id)

    @cached_property
    def _hook(self) -> FlowServiceHook:
        from airflow_flowservice.hooks import FlowServiceHook

        return FlowServiceHook(self.flowservice_conn_id)

    def _url(self, run: FlowRun | None) -> str | None:
        """Return the page of the flow run, or None if its dataflow is not known yet."""
        if run is None or run.flow_id is None:
            return None
        return self._hook.pages.flow_run(run.flow_id, run.id)

    def _watching(self, context: Context) -> RunWatch:
        """Return the watch of the flow run; in reschedule mode with the state that earlier polls stored."""
        from airflow_flowservice.runs.watch import RunWatch

        if self._watch is None:
            self.flow_run_id = task_context.rendered_id(self.flow_run_id, name="flow_run_id", source=_RUN_ID_SOURCE)
            store = context.get("task_state_store")
            known = store.get(_STORE_KEY) if store and self.reschedule else None
            self._watch = RunWatch(
                flow_run_id=self.flow_run_id,
                poll_interval=self._poll_interval,
                error_budget=self.error_budget,
                wait_for_batch=self.wait_for_batch,
                caller_limit=self._remaining_s(context),
            )
            self._watch.restore(known)
        return self._watch

    def _remaining_s(self, context: Context) -> float:
        """Return the seconds until a time limit of the sensor or of this process ends."""
        remaining = self.timeout - self._waited_s(context)
        # Python ignores Airflow's exception for this limit if it is raised in the callback of a weak reference.
        return min(remaining, self._limits.get("execution_timeout", remaining))

    def _waited_s(self, context: Context) -> float:
        """Return the seconds since the first poll in reschedule mode, as Airflow counts them; otherwise 0."""
        first = context["ti"].get_first_reschedule_date(context) if self.reschedule else None
        return 0.0 if first is None else (versions.utc_now() - first).total_seconds()

    def _remember(self, context: Context, watch: RunWatch) -> None:
        store = context.get("task_state_store")
        if store is not None and self.reschedule:
            store.set(_STORE_KEY, watch.to_json())
