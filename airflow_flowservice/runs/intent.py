"""What is about to be created, written down before it is: the values and protocols of `create_once`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, Protocol

from airflow_flowservice.windows.window import IngestionWindow

if TYPE_CHECKING:
    from airflow_flowservice.api.models import CreatedRun, DeltaColumn, FlowRun

Verdict = Literal["ours", "another", "unclear"]


class Store(Protocol):
    """Keeps JSON values beyond an attempt; Airflow 3.3's `task_state_store` is one."""

    def get(self, key: str, /) -> Any:
        """The value, or None."""

    def set(self, key: str, value: Any, /) -> None:
        """Write or overwrite."""

    def delete(self, key: str, /) -> None:
        """Remove; no error when it is not there."""


class Service(Protocol):
    """What is asked of Flow Service; `api.client.FlowServiceClient` is one."""

    def create_run(
        self,
        *,
        flow_id: str,
        window: IngestionWindow,
        start_time: datetime,
        delta_column: DeltaColumn | None = None,
    ) -> CreatedRun:
        """Create a run; datetimes are aware."""

    def retrigger_run(self, flow_run_id: str, /) -> CreatedRun:
        """Start a run again; the answer names a new one."""

    def get_run(self, flow_run_id: str, /) -> FlowRun:
        """Read one run."""

    def list_runs(
        self, *, flow_id: str | None = None, created_since: datetime | None = None, limit: int = 100
    ) -> Iterable[FlowRun]:
        """Runs, newest first, through all pages."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is wanted: a run of a flow for a window, or the repetition of a run.

    :param window: of the run; for a repetition that of the repeated run, if it is known.
    :param start_time: when the run begins (aware); None means now, and never before the window's end.
    :param retrigger: the run to repeat, instead of creating one for the window.
    """

    flow_id: str
    window: IngestionWindow | None = None
    start_time: datetime | None = None
    delta_column: DeltaColumn | None = None
    retrigger: str | None = None

    @property
    def key(self) -> str:
        """The same for orders that want the same."""
        return f"{self.flow_id} {self.retrigger or self.window}"


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """Which attempt of a task this is.

    :param try_number: 1 for the first; clears count on.
    :param max_tries: Airflow's; unchanged in a retry, grown after a clear.
    :param retries: the task's own, so `max_tries - retries + 1` is the first try since the last clear.
    :param began: when the DAG run started (aware); runs from before are none of ours.
    :param started_before: Airflow has begun this very attempt before, under the same number.
    """

    try_number: int = 1
    max_tries: int = 0
    retries: int = 0
    began: datetime | None = None
    started_before: bool = False

    @property
    def is_first(self) -> bool:
        """Whether no earlier attempt since the last clear can have created anything."""
        return not self.started_before and self.try_number <= self.max_tries - self.retries + 1


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The one run of an order.

    :param how: `created`, `resumed` (an earlier attempt's), or `adopted` (found after a lost answer).
    """

    flow_run_id: str
    how: Literal["created", "resumed", "adopted"]


@dataclass(frozen=True, kw_only=True)
class Intent:
    """What was about to be created; kept in the store as JSON.

    :param token: of the attempt that wrote it.
    :param written_at: epoch seconds, by the service's clock as far as the writer knew it.
    :param start_time: epoch seconds; tells our run from another DAG's with the same window.
    :param known: ids of the flow's newest runs before the POST.
    :param oldest_known: epoch seconds; runs from before it are old even if `known` lacks them.
    :param adopted: the run that somebody named to be adopted, once that was done, or could not be.
    """

    order: str
    max_tries: int
    token: str
    written_at: float
    start_time: int | None = None
    known: tuple[str, ...] = ()
    oldest_known: float | None = None
    flow_run_id: str | None = None
    adopted: str | None = None

    @classmethod
    def from_json(cls, value: Any) -> Intent | None:
        """The intent in a stored value, also one of a version that writes more; None if there is none to read."""
        names = {field.name for field in fields(cls)}
        try:
            read = {name: each for name, each in value.items() if name in names}
            return cls(**{**read, "known": tuple(value["known"])})
        except (TypeError, KeyError, AttributeError):
            return None

    def to_json(self) -> dict[str, Any]:
        """As JSON object."""
        return {**asdict(self), "known": list(self.known)}

    def is_news(self, run: FlowRun) -> bool:
        """Whether a run was not there when the intent was written."""
        if run.id in self.known:
            return False
        if self.oldest_known is None or run.created_at is None:
            return True
        return run.created_at.timestamp() >= self.oldest_known

    def judge(self, run: FlowRun, order: Order) -> Verdict:
        """Whether a new run of the flow is the one that the intent speaks of.

        A run that shows no window can be anybody's: "cannot tell" is never "no match".
        """
        if order.retrigger is not None and run.parent_id is not None:
            return "ours" if run.parent_id == order.retrigger else "another"
        if run.window is None:
            return "unclear"
        if order.window is None or run.window != order.window:
            return "another" if order.window is not None else "unclear"
        if order.retrigger is not None:
            return "unclear"
        if run.start_time is None or self.start_time is None:
            return "ours"
        return "ours" if int(run.start_time.timestamp()) == self.start_time else "another"
