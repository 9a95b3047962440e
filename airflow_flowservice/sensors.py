"""A sensor that waits for a flow run of Adobe Flow Service."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from airflow.sdk import BaseOperator, BaseSensorOperator, PokeReturnValue

from airflow_flowservice._airflow import metrics, task_context, task_end, trigger_start, versions, waiting
from airflow_flowservice._airflow.task_context import URL_KEY
from airflow_flowservice._airflow.tolerance import Tolerance
from airflow_flowservice.exceptions import (
    ConfigurationError,
    FlowRunEmptyError,
    FlowRunError,
    FlowRunFailedError,
    FlowRunIncompleteError,
    FlowServiceError,
)
from airflow_flowservice.links import DataflowLink, FlowRunLink

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

    from airflow.sdk import Context

    from airflow_flowservice.api.models import FlowRun
    from airflow_flowservice.hooks import FlowServiceHook
    from airflow_flowservice.runs.summary import FlowRunSummary
    from airflow_flowservice.runs.watch import RunWatch

_STORE_KEY = "flowservice_status"
_FAILED_REMEDY = (
    "read the run's errors; then clear the task that created the run, which creates a new one for the window, or start "
    "the run again with RetriggerFlowRunOperator (a retry of the sensor would wait for the same run)"
)
_INCOMPLETE_REMEDY = (
    "look at the failed records in Experience Platform, then mark the task as success, or raise the limit and clear "
    "this task, which looks at the same run again"
)
_EMPTY_REMEDY = (
    "if the source had nothing for the window, mark the task as success; else clear the task that created the run once "
    "the data is there, which creates a new run for the window"
)
_TIMEOUT_REMEDY = "raise timeout, then clear this task: it waits for the same run, which goes on at Adobe"

_REMEDIES: dict[type[FlowRunError], str] = {
    FlowRunFailedError: _FAILED_REMEDY,
    FlowRunIncompleteError: _INCOMPLETE_REMEDY,
    FlowRunEmptyError: _EMPTY_REMEDY,
}


class FlowRunSensor(BaseSensorOperator):
    """Waits until a flow run has ended; it never creates one, so a retry only waits again.

    :param flow_run_id: the run, usually `create.output` of an `OnDemandFlowRunOperator`; templated.
    :param poke_interval: seconds between two looks at the run, in every mode.
    :param deferrable: wait in the triggerer; default: Airflow's `[operators] default_deferrable`.
    :param error_budget: seconds (or `timedelta`) without one good answer after which waiting ends.
    :param max_failed_records: how many records may fail before the task does; as `OnDemandFlowRunOperator`'s.
    :param max_failed_ratio: which share of the records may fail, 0 to 1.
    :param on_empty: what a run without records makes of the task: `succeed`, `skip` or `fail`.
    :param start_from_trigger: begin in the triggerer, without any worker process unless the run fails (Airflow 3.3
        and later; before, and in mapped sensors, the wait begins on a worker). Implies `deferrable`.
    :param flowservice_conn_id: the connection, of type `flowservice`.

    `mode`, `timeout`, `soft_fail` and the rest are those of Airflow's `BaseSensorOperator`, and mean the same in every
    mode: `timeout` is final (clear the task to wait on), `execution_timeout` is retried, `soft_fail` skips on both and
    on a failed run, `never_fail` on any error. Returns the flow run's id, and pushes the XCom `flow_run` (see
    `FlowRunSummary.to_json`).

    :raises FlowRunFailedError: the run failed; ends the task without retries, since waiting again cannot help.
    :raises FlowRunIncompleteError: more records failed than the task allows; not retried either.
    :raises FlowRunEmptyError: there were no records, and `on_empty` is `fail`; not retried either.
    :raises FlowRunVanishedError: the run could be read, and is not there any more.
    :raises FlowRunTimeoutError: a time limit is over and the run goes on.
    """

    template_fields: Sequence[str] = ("flow_run_id",)
    operator_extra_links = (FlowRunLink(), DataflowLink())
    ui_color = "#fbe4e2"

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
        start_from_trigger: bool = False,
        flowservice_conn_id: str = "flowservice_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(poke_interval=poke_interval, **kwargs)
        self.flow_run_id = flow_run_id
        if deferrable is None:
            deferrable = start_from_trigger or versions.default_deferrable()
        self.deferrable = deferrable
        self.error_budget = waiting.positive_seconds(error_budget, name="error_budget")
        self.tolerance = Tolerance.of_task(
            max_failed_records=max_failed_records, max_failed_ratio=max_failed_ratio, on_empty=on_empty
        )
        self.flowservice_conn_id = flowservice_conn_id
        self._watch: RunWatch | None = None
        self.flow_run_summary: FlowRunSummary | None = None
        self.flow_run_url: str | None = None
        self.dataflow_url: str | None = None
        self.was_deferred = False
        if start_from_trigger:
            self._start_from_trigger()

    def _start_from_trigger(self) -> None:
        if not self.deferrable:
            raise ConfigurationError("start_from_trigger=True and deferrable=False exclude each other")
        if not trigger_start.can_start_in_triggerer(self):
            return
        self.start_from_trigger = True
        self.start_trigger_args = trigger_start.start_trigger_args(
            trigger="airflow_flowservice.triggers.FlowRunTrigger",
            arguments={
                "flow_run_id": trigger_start.as_template(self.flow_run_id),
                "flowservice_conn_id": self.flowservice_conn_id,
                "poll_interval": self.poke_interval or 1.0,
                "ends_task": not self.outlets,
                "is_alone": True,
                "error_budget": self.error_budget,
                **self.tolerance.to_arguments(),
            },
            next_method="execute_complete",
            timeout=min(self._limits.values()),
        )

    def execute(self, context: Context) -> Any:
        """As `BaseSensorOperator.execute`; what ends the wait names the flow run.

        :raises FlowRunTimeoutError: a time limit is over: `timeout` is final, `execution_timeout` is retried.
        """
        skip = versions.airflow_exception("AirflowSkipException")
        limits = (versions.airflow_exception("AirflowSensorTimeout"), versions.airflow_exception("AirflowTaskTimeout"))
        with task_end.skips(soft_fail=self.soft_fail, never_fail=self.never_fail):
            try:
                return super().execute(context)
            except skip as skipped:
                raise skip(str(self._reason(context, skipped.__cause__))) from skipped.__cause__
            except limits as error:
                raise self._reason(context, error) from error

    def poke(self, context: Context) -> PokeReturnValue | bool:
        """Look at the run once; the deferrable way, go on in the triggerer if it has not ended.

        Deferring from here leaves `soft_fail` and its like to Airflow, for the first look too.
        """
        from airflow_flowservice.runs.summary import FlowRunSummary

        with task_end.task_errors(FlowRunFailedError):
            watch = self._watching(context)
            run = watch.look(metrics.counted(self._hook.client.get_run))
            watch.url = self._url(watch.last) or watch.url
            self._remember(context, watch)
            if watch.url != self.flow_run_url:
                waiting.show_page(self, context, watch.url)
            if run is None:
                if self.deferrable:
                    self._defer(context)
                return False
            summary = FlowRunSummary.of(run, url=watch.url)
            return PokeReturnValue(True, xcom_value=self._finish(context, summary))

    def execute_complete(self, context: Context, event: Any) -> str:
        """End the task with what the trigger saw. The run's id."""
        with task_end.task_errors(FlowRunFailedError):
            return self._finish(context, waiting.summary_from_event(context, event))

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """As `BaseSensorOperator.resume_execution`; after a time limit, the run is looked at once more.

        :raises FlowRunTimeoutError: it goes on.
        """
        if waiting.is_another_attempts(context, next_kwargs):
            return self.execute(context)
        self.was_deferred = True
        with task_end.skips(soft_fail=self.soft_fail, never_fail=self.never_fail):
            try:
                return BaseOperator.resume_execution(self, next_method, next_kwargs, context)
            except versions.airflow_exception("TaskDeferralTimeout"):
                with task_end.task_errors(FlowRunFailedError):
                    return self._end_after_limit(context)

    def on_kill(self) -> None:
        """Say that the run goes on; Adobe cannot cancel it."""
        waiting.say_that_it_goes_on(self.flow_run_id, self.flow_run_url)

    def _reason(self, context: Context, error: BaseException | None) -> BaseException:
        """What ended the wait, told for its flow run; Airflow's own words for time limits name none.

        :param error: Airflow's; None where `soft_fail` met `timeout`.
        """
        if isinstance(error, versions.airflow_exception("AirflowTaskTimeout")):
            return self._timed_out(self._watching(context), "execution_timeout")
        if error is None or isinstance(error, versions.airflow_exception("AirflowSensorTimeout")):
            return self._timed_out(self._watching(context), "timeout")
        return error

    def _timed_out(self, watch: RunWatch, limit: str) -> FlowServiceError:
        """The error for a time limit: `timeout` is final, as Airflow has it, and `execution_timeout` is retried."""
        error = watch.timed_out(limit, self._limits[limit])
        if limit == "execution_timeout":
            return error
        error.remedy = _TIMEOUT_REMEDY
        return task_end.as_sensor_timeout(error)

    @property
    def _limits(self) -> dict[str, float]:
        """Seconds of each time limit that there is, by name."""
        if self.execution_timeout is None:
            return {"timeout": self.timeout}
        return {"timeout": self.timeout, "execution_timeout": self.execution_timeout.total_seconds()}

    def _end_after_limit(self, context: Context) -> str:
        """A last look: a run that has ended by now ends the task, whatever the triggerer was busy with."""
        from airflow_flowservice.runs.summary import FlowRunSummary

        watch = self._watching(context)
        run = watch.last_look(lambda flow_run_id: self._hook.client.get_run(flow_run_id))
        watch.url = self._url(watch.last) or task_context.read_xcom(context["ti"], key=URL_KEY)
        if run is not None:
            return self._finish(context, FlowRunSummary.of(run, url=watch.url))
        raise self._timed_out(watch, min(self._limits, key=self._limits.__getitem__))

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:
        """What the flow run read and wrote, for Airflow's OpenLineage listener; also when the task failed."""
        from airflow_flowservice.openlineage import lineage_of

        return lineage_of(self, task_instance)

    get_openlineage_facets_on_failure = get_openlineage_facets_on_complete

    def _finish(self, context: Context, summary: FlowRunSummary) -> str:
        try:
            return waiting.finish(self, context, summary)
        except FlowRunError as error:
            error.remedy = _REMEDIES[type(error)]
            raise

    def _defer(self, context: Context) -> NoReturn:
        from datetime import timedelta

        from airflow_flowservice.triggers import FlowRunTrigger

        waiting.push_return_value(self, context, self.flow_run_id)
        waiting.note_attempt(context)
        last = self._watching(context).last
        self.defer(
            trigger=FlowRunTrigger(
                flow_run_id=self.flow_run_id,
                flowservice_conn_id=self.flowservice_conn_id,
                poll_interval=self.poke_interval or 1.0,
                flow_id=last.flow_id if last else None,
                url=self._url(last),
                seen=last is not None,
                ends_task=task_end.ends_in_triggerer(self),
                error_budget=self.error_budget,
                **self.tolerance.to_arguments(),
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=min(self._limits.values())),
        )

    @cached_property
    def _hook(self) -> FlowServiceHook:
        from airflow_flowservice.hooks import FlowServiceHook

        return FlowServiceHook(self.flowservice_conn_id)

    def _url(self, run: FlowRun | None) -> str | None:
        """The run's page, which needs the dataflow's id: known once the run was read."""
        if run is None or run.flow_id is None:
            return None
        return self._hook.pages.flow_run(run.flow_id, run.id)

    def _watching(self, context: Context) -> RunWatch:
        """What is known of the run; in reschedule mode carried over from earlier looks by Airflow's task state."""
        from airflow_flowservice.runs.watch import RunWatch

        if self._watch is None:
            if not self.flow_run_id or not isinstance(self.flow_run_id, str):
                raise ConfigurationError(
                    f"flow_run_id is {self.flow_run_id!r}",
                    remedy="set flow_run_id to the creating task's output; if it is a template, check it",
                )
            store = task_context.state_store(context)
            known = store.get(_STORE_KEY) if store and self.reschedule else None
            self._watch = RunWatch(
                flow_run_id=self.flow_run_id, poll_interval=self.poke_interval or 1.0, error_budget=self.error_budget
            )
            self._watch.carry_over(known)
        return self._watch

    def _remember(self, context: Context, watch: RunWatch) -> None:
        store = task_context.state_store(context)
        if store is not None and self.reschedule:
            store.set(_STORE_KEY, watch.to_carry_over())
