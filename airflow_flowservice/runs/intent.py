# SPDX-License-Identifier: Apache-2.0
"""Values and protocols of `create_once`: the order, the attempt, the intent and the outcome."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Protocol

from airflow_flowservice.plain_text import ID_LENGTH, clean_text
from airflow_flowservice.windows.window import IngestionWindow, iso, parse_instant, window_from_json, window_to_json

if TYPE_CHECKING:
    from airflow_flowservice.api.models import CreatedRun, DeltaColumn, Flow, FlowRun

Match = Literal["ours", "another", "unclear"]


class Store(Protocol):
    """Store of JSON values that survive an attempt, such as Airflow 3.3's `task_state_store`."""

    def get(self, key: str, /) -> Any:
        """Return the value, or None."""

    def set(self, key: str, value: Any, /) -> None:
        """Write or overwrite the value."""

    def delete(self, key: str, /) -> None:
        """Remove the value; no error if there is none."""


class FlowRunService(Protocol):
    """Requests to Flow Service that creating needs; `api.client.FlowServiceClient` implements it."""

    def get_flow(self, flow_id: str, /) -> Flow:
        """Read a dataflow."""

    def create_run(
        self,
        *,
        flow_id: str,
        window: IngestionWindow,
        start_time: datetime,
        delta_column: DeltaColumn | None = None,
    ) -> CreatedRun:
        """Create a flow run; datetimes are aware."""

    def retrigger_run(self, flow_run_id: str, /) -> CreatedRun:
        """Repeat a flow run, and return the new one."""

    def get_run(self, flow_run_id: str, /, *, within_s: float | None = None) -> FlowRun:
        """Read one flow run, within some seconds."""

    def list_runs(
        self,
        *,
        flow_id: str | None = None,
        created_since: datetime | None = None,
        limit: int = 100,
        only_ids: bool = False,
    ) -> Iterable[FlowRun]:
        """Yield flow runs, newest first, through all pages; optionally only their ids and times of creation."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """Request for a flow run of a dataflow for a window, or for the repetition of a flow run.

    :param window: of the flow run; for a repetition that of the repeated flow run, if it is known.
    :param start_time: when the flow run begins (aware); None means now, but not before the window's end.
    :param retrigger: id of the flow run to repeat, instead of creating one for the window.
    :param flow_name: the dataflow's name, if the check before the POST has read it; only kept in the intent.
    """

    flow_id: str
    window: IngestionWindow | None = None
    start_time: datetime | None = None
    delta_column: DeltaColumn | None = None
    retrigger: str | None = None
    flow_name: str | None = field(default=None, compare=False)

    def send(self, service: FlowRunService, *, start_time: datetime) -> CreatedRun:
        """Create the flow run, and return it.

        :param start_time: when the flow run begins; aware.
        :raises ApiError: Flow Service refused the request, or its outcome is unknown.
        """
        if self.retrigger is not None:
            return service.retrigger_run(self.retrigger)
        if self.window is None:
            raise TypeError("an order needs a window or a run to repeat")
        return service.create_run(
            flow_id=self.flow_id, window=self.window, start_time=start_time, delta_column=self.delta_column
        )

    @cached_property
    def key(self) -> str:
        """Return a text that is equal for orders of the same flow run."""
        return f"{self.flow_id} {self.retrigger or self.window}"

    def to_json(self) -> dict[str, Any]:
        """Return the order as a JSON object."""
        return {
            "flow_id": self.flow_id,
            **window_to_json(self.window),
            "start_time": iso(self.start_time) if self.start_time else None,
            "delta_column": self.delta_column.to_json() if self.delta_column else None,
            "retrigger": self.retrigger,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Order:
        """Parse what `to_json` returned."""
        from airflow_flowservice.api.models import DeltaColumn

        start_time, delta_column = value["start_time"], value["delta_column"]
        return cls(
            flow_id=value["flow_id"],
            window=window_from_json(value),
            start_time=parse_instant(start_time, name="start_time") if start_time else None,
            delta_column=DeltaColumn.parse(delta_column) if delta_column else None,
            retrigger=value["retrigger"],
        )


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """Attempt of a task.

    :param try_number: 1 for the first; not reset by a clear.
    :param max_tries: Airflow's value; a retry leaves it unchanged, a clear increases it.
    :param retries: the task's own value, so `max_tries - retries + 1` is the first try since the last clear.
    :param began: when the DAG run started (aware); earlier flow runs are not of this task.
    :param started_before: Airflow has started this attempt before, under the same number.
    """

    try_number: int = 1
    max_tries: int = 0
    retries: int = 0
    began: datetime | None = None
    started_before: bool = False

    @property
    def was_cleared(self) -> bool:
        """Return True if the task was cleared in this DAG run: only a clear allows more tries than `retries`."""
        return self.try_number > 1 and self.max_tries > self.retries

    @property
    def is_first(self) -> bool:
        """Return True if no earlier attempt since the last clear can have created a flow run."""
        return not self.started_before and self.try_number <= self.max_tries - self.retries + 1


@dataclass(frozen=True, kw_only=True)
class IngestedPart:
    """Part of an order's window that the ledger has as ingested.

    :param window: of the part; it may exceed the order's window.
    :param flow_id: dataflow of the part; an earlier one that the order's dataflow continues, or the order's.
    :param owner: task instance (`LedgerEntry.owner`) that ingested it.
    :param output_records: records written by the flow run, if known.
    """

    window: IngestionWindow
    flow_id: str
    flow_run_id: str
    owner: str
    output_records: int | None = None

    def __str__(self) -> str:
        return f"{self.window} by flow run {self.flow_run_id} of {self.owner}"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Flow run of an order.

    :param how: `created`, `resumed` (created by an earlier attempt), `adopted` (found or named), or `reused` (of
        another task instance, by the ledger).
    :param is_ingested: True if the ledger knows that the flow run ingested the window.
    :param output_records: records that it wrote, if the ledger knows it.
    :param parts: if several windows together ingested the order's window, each of them in the order of time. The flow
        run is then that of the last part.
    """

    flow_run_id: str
    how: Literal["created", "resumed", "adopted", "reused"]
    is_ingested: bool = False
    output_records: int | None = None
    parts: tuple[IngestedPart, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Intent:
    """Flow run that an attempt is about to create; kept in the store as JSON.

    :param token: of the attempt that wrote the intent.
    :param written_at: epoch seconds, by the service's clock if its offset was known.
    :param start_time: epoch seconds; distinguishes the flow run from another DAG's with the same window.
    :param known: ids of the dataflow's newest flow runs before the POST.
    :param oldest_known: epoch seconds; flow runs created earlier are not new even if `known` lacks them.
    :param adopted: id of the named flow run, after it was adopted or found to have failed.
    :param question: JSON object of `runs.question.Question` that waits for an answer.
    :param flow_name: name of the dataflow, for `name_in_intent`; None if the attempt did not read it.
    :param restates: ids of flow runs of other windows in the ledger that overlap this one. They ingested a part of it,
        or may ingest it.
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
    question: Mapping[str, Any] | None = field(default=None, hash=False)
    flow_name: str | None = None
    restates: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, value: Any) -> Intent | None:
        """Parse a stored value, and ignore unknown fields of a later version. Return None if it is no intent."""
        names = {each.name for each in fields(cls)}
        try:
            read = {name: each for name, each in value.items() if name in names}
            return cls(**{**read, "known": tuple(value["known"]), "restates": tuple(value.get("restates") or ())})
        except (TypeError, KeyError, AttributeError):
            return None

    def to_json(self) -> dict[str, Any]:
        """Return the intent as a JSON object."""
        values = {**asdict(self), "known": list(self.known), "restates": list(self.restates)}
        for name in ("question", "flow_name", "restates"):
            if not values[name]:
                del values[name]
        return values

    def is_new(self, run: FlowRun) -> bool:
        """Return True if the flow run did not exist when the intent was written."""
        if run.id in self.known:
            return False
        if self.oldest_known is None or run.created_at is None:
            return True
        return run.created_at.timestamp() >= self.oldest_known

    def match(self, run: FlowRun, order: Order) -> Match:
        """Return whether the intent's POST created this new flow run of the dataflow.

        A flow run that shows no window is "unclear", never "another".
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


def bounded_name(name: Any) -> str | None:
    """Return the name of a dataflow, cleaned and bounded to `ID_LENGTH`; None if it is no text, or blank."""
    return clean_text(name.strip(), length=ID_LENGTH) if isinstance(name, str) and name.strip() else None


def name_in_intent(intent: Any) -> str | None:
    """Return the name of the dataflow in a stored intent; None if it has none, for instance of an earlier version."""
    return bounded_name(intent.get("flow_name")) if isinstance(intent, Mapping) else None
