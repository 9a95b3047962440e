# SPDX-License-Identifier: Apache-2.0
"""Check in a sensor whether the windows of a dataflow are ingested in time, for a monitoring DAG."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from airflow.sdk import BaseOperator, BaseSensorOperator, PokeReturnValue

from airflow_flowservice._airflow import named_dataflow, task_end, versions
from airflow_flowservice._airflow.flow_run_task import positive_seconds
from airflow_flowservice.exceptions import ConfigurationError, FlowLateError, FlowServiceError
from airflow_flowservice.links import DataflowLink

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from airflow.sdk import Context

    from airflow_flowservice.coverage.lag import Lag, LagLimit
    from airflow_flowservice.hooks import FlowServiceHook

__all__ = ["FlowFreshnessSensor"]

_ON_LATE = ("fail", "wait")


class FlowFreshnessSensor(BaseSensorOperator):
    """Succeed if the lag of a dataflow is at most `max_lag`. Else fail, or wait until it is.

    The lag is now minus the end of the contiguous ingested time, as the page All dataflows defines it. The sensor reads
    the ledger and, if the dataflow is late by the ledger, its flow runs. So it also works while the DAG of the dataflow
    is paused, fails to parse, or was deleted. It does not know the schedule: each time between two ingested windows
    that is not ingested is a gap.

    :param flow_id: id of the dataflow; templated.
    :param flow_name: name of the dataflow in the connection's sandbox, instead of `flow_id`; templated.
    :param max_lag: the longest accepted lag, a `timedelta` or seconds.
    :param on_late: `fail` checks once, and fails if the dataflow is late, for a monitoring DAG; the task's `retries`
        check again. `wait` checks every `poke_interval` until the dataflow is fresh, at most for `timeout`.
    :param lookback: time before now in which gaps count, a `timedelta` or seconds; default: seven days, and at least
        twice `max_lag`.
    :param ignore_gaps: count the lag from the end of the last ingested window, also if there is a gap before it.
    :param poke_interval: seconds between two checks, in every mode.
    :param deferrable: wait in the triggerer, with `on_late="wait"`; default: Airflow's
        `[operators] default_deferrable`.
    :param flowservice_conn_id: id of a connection of type `flowservice`; templated.

    `mode`, `timeout`, `soft_fail` and the other parameters are those of Airflow's `BaseSensorOperator`. With
    `soft_fail`, a late dataflow skips the task. `timeout` is final, as in Airflow; `execution_timeout` is retried.

    Return `flow_id`, `late`, `lag_seconds`, `max_lag_seconds`, `complete_until`, `last_window_start` and
    `last_window_end`.

    :raises FlowLateError: the lag is longer than `max_lag`, or was when the time limit ended.
    """

    template_fields: Sequence[str] = ("flow_id", "flow_name", "flowservice_conn_id")
    operator_extra_links = (DataflowLink(),)
    ui_color = "#fbe4e2"

    dataflow_url: str | None = None

    def __init__(
        self,
        *,
        flow_id: str | None = None,
        flow_name: str | None = None,
        max_lag: timedelta | float,
        on_late: Literal["fail", "wait"] = "fail",
        lookback: timedelta | float | None = None,
        ignore_gaps: bool = False,
        poke_interval: Any = 300.0,
        deferrable: bool | None = None,
        flowservice_conn_id: str = "flowservice_default",
        **kwargs: Any,
    ) -> None:
        with task_end.constructor_errors(self, flow_id=flow_id):
            super().__init__(poke_interval=poke_interval, **kwargs)
            named_dataflow.require_one(flow_id, flow_name)
            self.flow_id = flow_id
            self.flow_name = flow_name
            self.max_lag = positive_seconds(max_lag, name="max_lag")
            if on_late not in _ON_LATE:
                raise ConfigurationError(f"on_late is {on_late!r}", remedy=f"use one of {_ON_LATE}")
            self.on_late = on_late
            self.lookback = None if lookback is None else positive_seconds(lookback, name="lookback")
            if self.lookback is not None and self.lookback <= self.max_lag:
                raise ConfigurationError("lookback is not longer than max_lag", remedy="set a longer lookback")
            self.ignore_gaps = ignore_gaps
            self.deferrable = versions.default_deferrable() if deferrable is None else deferrable
            self.flowservice_conn_id = flowservice_conn_id
            self._last: Lag | None = None

    def execute(self, context: Context) -> Any:
        """Check, and wait as `BaseSensorOperator.execute` if the dataflow is late and `on_late` is `wait`.

        :raises FlowLateError: the dataflow is late. After `timeout`, the error is final.
        """
        with self._skips():
            try:
                return super().execute(context)
            except versions.airflow_exception("AirflowSensorTimeout") as error:
                raise self._timed_out("timeout") from error
            except versions.airflow_exception("AirflowTaskTimeout") as error:
                raise self._timed_out("execution_timeout") from error

    def poke(self, context: Context) -> PokeReturnValue | bool:
        """Check once. If the dataflow is late, fail or wait.

        :raises FlowLateError: the dataflow is late, and `on_late` is `fail`.
        """
        with task_end.task_errors():
            try:
                lag = self._check(context)
            except FlowServiceError as error:
                if self.on_late == "fail" or not error.retryable:
                    raise
                self.log.warning("The lag could not be read: %s. The next check follows.", error)
            else:
                if not lag.is_late:
                    self.log.info("Fresh: %s.", lag.describe())
                    return PokeReturnValue(True, xcom_value=lag.to_json())
                if self.on_late == "fail":
                    raise self._late(lag)
                self.log.info("Not fresh yet: %s.", lag.describe())
        # After a deferral, Airflow would resume the task that executes this one.
        is_nested = context["task"].task_id != self.task_id
        if self.deferrable and not is_nested and self.flow_id is not None:
            self._defer(self.flow_id)
        return False

    def execute_complete(self, context: Context, event: Any) -> Any:
        """End the task with the lag in the trigger's event. After an error of the trigger, check again."""
        if isinstance(event, dict) and "error" not in event:
            return event
        return self.execute(context)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume as `BaseSensorOperator.resume_execution`. After a time limit, check a last time.

        :raises FlowLateError: the dataflow is late after the time limit.
        """
        with self._skips():
            try:
                return BaseOperator.resume_execution(self, next_method, next_kwargs, context)
            except versions.airflow_exception("TaskDeferralTimeout") as error:
                with task_end.task_errors():
                    lag = self._check(context)
                if not lag.is_late:
                    return lag.to_json()
                raise self._timed_out(self._deferral_limit) from error

    @contextmanager
    def _skips(self) -> Iterator[None]:
        """Turn errors into skips whose message names the dataflow, if `soft_fail` or `never_fail` is set."""
        skip = versions.airflow_exception("AirflowSkipException")
        try:
            yield
        except skip as skipped:
            cause = skipped.__cause__
            is_limit = not isinstance(cause, FlowServiceError) and self._last is not None
            raise skip(str(self._timed_out("timeout") if is_limit else cause or skipped)) from skipped
        except FlowServiceError as error:
            if self.never_fail or (self.soft_fail and isinstance(error, FlowLateError)):
                raise skip(str(error)) from error
            raise

    @property
    def _deferral_limit(self) -> str:
        """Return the name of the time limit that ends first in the triggerer."""
        limit = self.execution_timeout
        return "execution_timeout" if limit is not None and limit.total_seconds() < self.timeout else "timeout"

    @cached_property
    def _hook(self) -> FlowServiceHook:
        from airflow_flowservice.hooks import FlowServiceHook

        return FlowServiceHook(self.flowservice_conn_id)

    @property
    def _limit(self) -> LagLimit:
        from airflow_flowservice.coverage.lag import LagLimit

        return LagLimit(
            max_lag=timedelta(seconds=self.max_lag),
            lookback=None if self.lookback is None else timedelta(seconds=self.lookback),
            ignores_gaps=self.ignore_gaps,
        )

    def _check(self, context: Context) -> Lag:
        self.flow_id = flow_id = named_dataflow.chosen_flow_id(
            context, flow_id=self.flow_id, flow_name=self.flow_name, find=self._hook.flow_id_of, is_kept=False
        )
        self.dataflow_url = self._hook.pages.dataflow(flow_id)
        self._last = self._hook.lag_of(flow_id, limit=self._limit)
        return self._last

    def _late(self, lag: Lag) -> FlowLateError:
        return lag.error().about(url=self.dataflow_url)

    def _timed_out(self, limit: str) -> FlowServiceError:
        """Return the error of a time limit, with the last known lag."""
        last = self._last
        error = self._late(last) if last else FlowLateError("the lag could not be read", flow_id=self.flow_id)
        error.message = f"{error.message}. The task waited until its {limit} was over"
        return error if limit == "execution_timeout" else task_end.as_sensor_timeout(error)

    def _defer(self, flow_id: str) -> NoReturn:
        from airflow_flowservice.freshness_trigger import FlowFreshnessTrigger

        trigger = FlowFreshnessTrigger(
            flow_id=flow_id,
            max_lag=self.max_lag,
            lookback=self.lookback,
            ignore_gaps=self.ignore_gaps,
            poll_interval=self.poke_interval or 1.0,
            flowservice_conn_id=self.flowservice_conn_id,
        )
        timeout = timedelta(seconds=self.timeout)
        limit = timeout if self.execution_timeout is None else min(timeout, self.execution_timeout)
        self.defer(trigger=trigger, method_name="execute_complete", timeout=limit)
