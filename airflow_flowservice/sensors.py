"""A sensor that waits for a flow run of Adobe Flow Service."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk import BaseSensorOperator, PokeReturnValue

from airflow_flowservice import _airflow, _stats, _waiting
from airflow_flowservice.exceptions import ConfigurationError, FlowRunFailedError
from airflow_flowservice.links import DataflowLink, FlowRunLink

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

    from airflow.sdk import Context

    from airflow_flowservice.api.models import FlowRun
    from airflow_flowservice.hooks import FlowServiceHook
    from airflow_flowservice.ingestion.watching import RunWatch

_STORE_KEY = "flowservice_status"
_REMEDY = (
    "read the run's errors; then clear the task that created the run, which creates a new one for the window, or start "
    "the run again with RetriggerFlowRunOperator (a retry of the sensor would wait for the same run)"
)


class FlowRunSensor(BaseSensorOperator):
    """Waits until a flow run has ended; it never creates one, so a retry only waits again.

    :param flow_run_id: the run, usually `create.output` of an `OnDemandFlowRunOperator`; templated.
    :param poke_interval: seconds between two looks at the run, in every mode.
    :param deferrable: wait in the triggerer; default: Airflow's `[operators] default_deferrable`.
    :param error_budget: seconds (or `timedelta`) without one good answer after which waiting ends.
    :param start_from_trigger: begin in the triggerer, without any worker process unless the run fails (Airflow 3.3
        and later; before, the wait begins on a worker). Implies `deferrable`; not for mapped sensors.
    :param flowservice_conn_id: the connection, of type `flowservice`.

    `mode`, `timeout`, `soft_fail` and the rest are those of Airflow's `BaseSensorOperator`. Returns the flow run's id,
    and pushes the XCom `flow_run` (see `ingestion.outcome.summary_of`).

    :raises FlowRunFailedError: the run failed; ends the task without retries, since waiting again cannot help.
    :raises FlowRunVanishedError: the run could be read, and is not there any more.
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
        start_from_trigger: bool = False,
        flowservice_conn_id: str = "flowservice_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(poke_interval=poke_interval, **kwargs)
        self.flow_run_id = flow_run_id
        if deferrable is None:
            deferrable = start_from_trigger or _airflow.default_deferrable()
        self.deferrable = deferrable
        self.error_budget = _waiting.positive_seconds(error_budget, name="error_budget")
        self.flowservice_conn_id = flowservice_conn_id
        self._watch: RunWatch | None = None
        self.flow_run_summary: dict[str, Any] | None = None
        self.flow_run_url: str | None = None
        self.dataflow_url: str | None = None
        self.was_deferred = False
        if start_from_trigger:
            self._start_from_trigger()

    def _start_from_trigger(self) -> None:
        if not self.deferrable:
            raise ConfigurationError("start_from_trigger=True and deferrable=False exclude each other")
        if not _airflow.starts_in_triggerer():
            return
        self.start_from_trigger = True
        self.start_trigger_args = _airflow.start_trigger_args(
            trigger="airflow_flowservice.triggers.FlowRunTrigger",
            arguments={
                "flow_run_id": _airflow.as_template(self.flow_run_id),
                "flowservice_conn_id": self.flowservice_conn_id,
                "poll_interval": self.poke_interval or 1.0,
                "ends_task": not self.outlets,
                "is_alone": True,
                "error_budget": self.error_budget,
            },
            next_method="execute_complete",
            timeout=self.timeout,
        )

    def poke(self, context: Context) -> PokeReturnValue | bool:
        """Look at the run once; the deferrable way, go on in the triggerer if it has not ended.

        Deferring from here leaves `soft_fail` and its like to Airflow, for the first look too.
        """
        from airflow_flowservice.ingestion.outcome import summary_of

        with _airflow.task_errors(FlowRunFailedError):
            watch = self._watching(context)
            run = watch.look(_stats.counted(self._hook.client.get_run))
            self._remember(context, watch)
            watch.url = self._url(watch.last)
            if watch.url != self.flow_run_url:
                _waiting.show_page(self, context, watch.url)
            if run is None:
                if self.deferrable:
                    self._defer(context)
                return False
            summary = summary_of(run, url=watch.url)
            return PokeReturnValue(True, xcom_value=self._finish(context, summary))

    def execute_complete(self, context: Context, event: Any) -> str:
        """End the task with what the trigger saw. The run's id."""
        with _airflow.task_errors(FlowRunFailedError):
            return self._finish(context, _waiting.summary_from_event(context, event))

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """As `BaseSensorOperator.resume_execution`."""
        self.was_deferred = True
        return super().resume_execution(next_method, next_kwargs, context)

    def on_kill(self) -> None:
        """Say that the run goes on; Adobe cannot cancel it."""
        self.log.warning("Adobe cannot cancel flow run %s, so it goes on.", self.flow_run_id)

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:
        """What the flow run read and wrote, for Airflow's OpenLineage listener; also when the task failed."""
        from airflow_flowservice.openlineage import lineage_of

        return lineage_of(self, task_instance)

    get_openlineage_facets_on_failure = get_openlineage_facets_on_complete

    def _finish(self, context: Context, summary: dict[str, Any]) -> str:
        try:
            return _waiting.finish(self, context, summary)
        except FlowRunFailedError as error:
            error.remedy = _REMEDY
            raise

    def _defer(self, context: Context) -> NoReturn:
        from datetime import timedelta

        from airflow_flowservice.triggers import FlowRunTrigger

        _waiting.push_return_value(self, context, self.flow_run_id)
        last = self._watching(context).last
        limit = timedelta(seconds=self.timeout)
        self.defer(
            trigger=FlowRunTrigger(
                flow_run_id=self.flow_run_id,
                flowservice_conn_id=self.flowservice_conn_id,
                poll_interval=self.poke_interval or 1.0,
                flow_id=last.flow_id if last else None,
                url=self._url(last),
                seen=last is not None,
                ends_task=_airflow.ends_in_triggerer(self),
                error_budget=self.error_budget,
            ),
            method_name="execute_complete",
            timeout=min(limit, self.execution_timeout or limit),
        )

    @cached_property
    def _hook(self) -> FlowServiceHook:
        from airflow_flowservice.hooks import FlowServiceHook

        return FlowServiceHook(self.flowservice_conn_id)

    def _url(self, run: FlowRun | None) -> str | None:
        """The run's page, which needs the dataflow's id: known once the run was read."""
        if run is None or run.flow_id is None:
            return None
        return self._hook.run_url(flow_id=run.flow_id, flow_run_id=run.id)

    def _watching(self, context: Context) -> RunWatch:
        """What is known of the run; in reschedule mode carried over from earlier looks by Airflow's task state."""
        from airflow_flowservice.ingestion.watching import RunWatch

        if self._watch is None:
            if not self.flow_run_id or not isinstance(self.flow_run_id, str):
                raise ConfigurationError(
                    f"flow_run_id is {self.flow_run_id!r}",
                    remedy="set flow_run_id to the creating task's output; if it is a template, check it",
                )
            store = _airflow.state_store(context)
            known = store.get(_STORE_KEY) if store and self.reschedule else None
            self._watch = RunWatch(
                flow_run_id=self.flow_run_id, poll_interval=self.poke_interval or 1.0, error_budget=self.error_budget
            )
            self._watch.carry_over(known)
        return self._watch

    def _remember(self, context: Context, watch: RunWatch) -> None:
        store = _airflow.state_store(context)
        if store is not None and self.reschedule:
            store.set(_STORE_KEY, watch.to_carry_over())
