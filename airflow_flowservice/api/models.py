"""What Flow Service's JSON means: flows, flow runs, their status and figures.

Parsing is lenient: whatever is missing or strange becomes `None` or empty, because Adobe's pages and
samples differ from each other. Only an object without an id is refused.
Sources: https://developer.adobe.com/experience-platform-apis/references/flow-service/ and
https://experienceleague.adobe.com/en/docs/experience-platform/sources/api-tutorials/monitor
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_flowservice.api import _json as read
from airflow_flowservice.api._delta_column import DeltaColumn
from airflow_flowservice.api._status import FlowRunStatus
from airflow_flowservice.exceptions import UnreadableAnswerError
from airflow_flowservice.windows.window import IngestionWindow

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

__all__ = ["CreatedRun", "DeltaColumn", "Flow", "FlowRun", "FlowRunStatus", "FlowSpec", "RunError"]


@dataclass(frozen=True, kw_only=True)
class Flow:
    """A dataflow, from `GET /flows/{id}`.

    :param state: Adobe's word, such as `enabled` or `disabled`; empty when the answer has none.
    :param frequency: `scheduleParams.frequency`, such as `once` or `hour`.
    :param delta_column: the one set in the flow's `Copy` transformation, which later runs cannot change.
    :param raw: the JSON object, for what has no field here; not in the `repr`.
    """

    id: str
    name: str | None = None
    state: str = ""
    frequency: str | None = None
    delta_column: DeltaColumn | None = None
    flow_spec_id: str | None = None
    source_connection_ids: tuple[str, ...] = ()
    target_connection_ids: tuple[str, ...] = ()
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def parse(cls, raw: Any) -> Flow:
        """From a flow's JSON object.

        :raises UnreadableAnswerError: it is no object, or has no id.
        """
        return cls(
            id=_id_of(raw, "flow"),
            name=read.text(raw, "name"),
            state=read.text(raw, "state") or "",
            frequency=read.text(raw, "scheduleParams", "frequency"),
            delta_column=_copied_delta_column(raw),
            flow_spec_id=read.text(raw, "flowSpec", "id"),
            source_connection_ids=read.texts(raw, "sourceConnectionIds"),
            target_connection_ids=read.texts(raw, "targetConnectionIds"),
            raw=raw,
        )

    @property
    def enabled(self) -> bool:
        """Whether runs would be carried out. A flow that does not tell its state counts as enabled."""
        return self.state.strip().lower() in ("", "enabled")

    @property
    def one_time(self) -> bool | None:
        """Whether it is scheduled `once`, as on-demand runs need; None when the flow does not tell."""
        return None if self.frequency is None else self.frequency.strip().lower() == "once"


def _copied_delta_column(raw: Any) -> DeltaColumn | None:
    for transformation in read.objects(raw, "transformations"):
        if (read.text(transformation, "name") or "").lower() != "copy":
            continue
        name = read.text(transformation, "params", "deltaColumn", "name")
        name = name or read.text(transformation, "params", "deltaColumn")
        if name:
            return DeltaColumn(
                name=name,
                date_format=read.text(transformation, "params", "deltaColumn", "dateFormat"),
                timezone=read.text(transformation, "params", "deltaColumn", "timezone"),
            )
    return None


@dataclass(frozen=True, kw_only=True)
class FlowSpec:
    """What a kind of dataflow asks for, from `GET /flowSpecs/{id}`.

    :param run_parameters: those that creating a run requires (`runSpec.spec.required`); None when it does not tell.
    """

    id: str
    name: str | None = None
    run_parameters: tuple[str, ...] | None = None

    @classmethod
    def parse(cls, raw: Any) -> FlowSpec:
        """From its JSON object.

        :raises UnreadableAnswerError: it is no object, or has no id.
        """
        return cls(
            id=_id_of(raw, "flow specification"),
            name=read.text(raw, "name"),
            run_parameters=read.texts(raw, "runSpec", "spec", "required") or None,
        )

    @property
    def needs_delta_column(self) -> bool | None:
        """Whether its source is table-based, so that the first run names a delta column; None when nobody can tell."""
        return None if self.run_parameters is None else "deltaColumn" in self.run_parameters


@dataclass(frozen=True, kw_only=True)
class RunError:
    """One error that a flow run reports about itself, such as `CONNECTOR-1001-500`."""

    code: str | None
    message: str

    def __str__(self) -> str:
        return f"{self.code}: {self.message}" if self.code else self.message


@dataclass(frozen=True, kw_only=True)
class CreatedRun:
    """What creating or re-triggering a run answers: its id, and its version for `If-Match`."""

    id: str
    etag: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class FlowRun:
    """A flow run, from `GET /runs/{id}` or `GET /runs`.

    Instants are aware UTC datetimes, or None. Counts are records, bytes and files, or None when the
    answer leaves them out or says `-1`, which means not known.

    :param status_word: Adobe's own word, for messages; empty when the answer has none (a waiting run).
    :param created_client: the client id that created it; runs of the service itself show
        `acp_foundation_connectors`.
    :param window: the window that the run ingests, from `params`, else from an activity. None if the answer does
        not show it, or shows edges that do not make a window.
    :param start_time: when it was asked to begin, where the answer shows it.
    :param errors: its own and its activities' errors, each once. May hold the customer's host names.
    :param batch_ids: the batches in the data lake that it filled.
    :param parent_id: the run that this one belongs to.
    """

    id: str
    flow_id: str | None = None
    status: FlowRunStatus = FlowRunStatus.UNKNOWN
    status_word: str = ""
    created_at: datetime | None = None
    updated_at: datetime | None = None
    started_at: datetime | None = None
    completed_at: datetime | None = None
    created_client: str | None = None
    window: IngestionWindow | None = None
    start_time: datetime | None = None
    input_records: int | None = None
    output_records: int | None = None
    failed_records: int | None = None
    input_bytes: int | None = None
    output_bytes: int | None = None
    input_files: int | None = None
    output_files: int | None = None
    errors: tuple[RunError, ...] = ()
    batch_ids: tuple[str, ...] = ()
    parent_id: str | None = None
    etag: str | None = None

    @classmethod
    def parse(cls, raw: Any, *, briefly: bool = False) -> FlowRun:
        """From a run's JSON object.

        A run without any status is one that waits: `SCHEDULED`, with an empty `status_word`.

        :param briefly: of a run that has not ended, read id, dataflow and status alone.
        :raises UnreadableAnswerError: it is no object, or has no id.
        """
        run_id = _id_of(raw, "flow run")
        metrics = read.at(raw, "metrics")
        word = read.text(metrics, "statusSummary", "status") or read.text(raw, "status") or ""
        status = FlowRunStatus.parse(word) if word else FlowRunStatus.SCHEDULED
        if briefly and not status.ended:
            return cls(id=run_id, flow_id=read.text(raw, "flowId"), status=status, status_word=word)
        activities = tuple(_activities(raw))
        return cls(
            id=run_id,
            flow_id=read.text(raw, "flowId"),
            status=status,
            status_word=word,
            created_client=read.text(raw, "createdClient"),
            window=_window(raw, activities),
            errors=tuple(dict.fromkeys(_errors(raw, activities))),
            batch_ids=tuple(dict.fromkeys(_batch_ids(activities))),
            parent_id=read.text(raw, "parentFlowRunId"),
            etag=read.text(raw, "etag") or read.text(raw, "eTag"),
            **_instants(raw, read.at(metrics, "durationSummary")),
            **dict(_counts(metrics)),
        )


def _instants(raw: Any, durations: Any) -> dict[str, Any]:
    return {
        "created_at": read.instant(raw, "createdAt"),
        "start_time": read.instant(raw, "params", "startTime"),
        "updated_at": read.instant(raw, "updatedAt"),
        "started_at": read.instant(durations, "startedAtUTC"),
        "completed_at": read.instant(durations, "completedAtUTC"),
    }


def _counts(metrics: Any) -> Iterator[tuple[str, Any]]:
    for summary, names in _COUNTS.items():
        for name, key in names.items():
            yield name, read.count(metrics, summary, key)


_COUNTS = {
    "recordSummary": {
        "input_records": "inputRecordCount",
        "output_records": "outputRecordCount",
        "failed_records": "failedRecordCount",
    },
    "sizeSummary": {"input_bytes": "inputBytes", "output_bytes": "outputBytes"},
    "fileSummary": {"input_files": "inputFileCount", "output_files": "outputFileCount"},
}


def _activities(raw: Any) -> Iterator[Mapping[str, Any]]:
    """Adobe's OpenAPI file spells the key `activites` in one place."""
    for key in ("activities", "activites"):
        yield from read.objects(raw, key)


def _window(raw: Any, activities: tuple[Mapping[str, Any], ...]) -> IngestionWindow | None:
    extensions = ("durationSummary", "extensions")
    pairs = [(read.instant(raw, "params", key, zero=True) for key in ("windowStartTime", "windowEndTime"))]
    for activity in activities:
        pairs.append(read.instant(activity, *extensions, key, zero=True) for key in ("windowStart", "windowEnd"))
    for start, end in pairs:
        if start is not None and end is not None:
            return IngestionWindow.if_valid(start, end)
    return None


def _errors(raw: Any, activities: tuple[Mapping[str, Any], ...]) -> Iterator[RunError]:
    yield from _errors_at(raw, "metrics", "statusSummary", "errors")
    for activity in activities:
        yield from _errors_at(activity, "statusSummary", "errors")
        yield from _errors_at(activity, "statusSummary", "extensions", "errors")


def _errors_at(raw: Any, *path: str) -> Iterator[RunError]:
    for error in read.objects(raw, *path):
        message = read.text(error, "message") or read.text(error, "errorMessage")
        code = read.text(error, "code") or read.text(error, "errorCode")
        if message or code:
            yield RunError(code=code, message=message or "no message")


def _batch_ids(activities: tuple[Mapping[str, Any], ...]) -> Iterator[str]:
    for activity in activities:
        for target in read.objects(activity, "targetInfo"):
            reference = read.at(target, "reference")
            yield from read.texts(reference, "ids")


def _id_of(raw: Any, what: str) -> str:
    identifier = read.text(raw, "id")
    if not identifier:
        raise UnreadableAnswerError(f"Flow Service answered with a {what} that has no id")
    return identifier
