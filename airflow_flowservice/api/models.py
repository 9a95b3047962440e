"""Flows, flow runs, their status and their metrics, parsed from Flow Service's JSON.

Parsing is lenient: a missing or unexpected value becomes `None` or empty, because Adobe's pages and samples
differ from each other. Only an object without an id is refused.
Texts are printable and bounded (`plain_text`), and a flow run has at most `MAX_RUN_ERRORS` errors.
Sources: https://developer.adobe.com/experience-platform-apis/references/flow-service/ and
https://experienceleague.adobe.com/en/docs/experience-platform/sources/api-tutorials/monitor
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from itertools import islice
from typing import TYPE_CHECKING, Any

from airflow_flowservice.api.json_values import (
    clean_json,
    count_at,
    instant_at,
    objects_at,
    required_id,
    text_at,
    texts_at,
    value_at,
)
from airflow_flowservice.exceptions import ConfigurationError
from airflow_flowservice.plain_text import ID_LENGTH, remedy_for_list
from airflow_flowservice.windows.window import IngestionWindow

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime


@dataclass(frozen=True, kw_only=True)
class DeltaColumn:
    """Source column that distinguishes new rows from old rows (table-based sources).

    :param name: name of the column in the source.
    :param date_format: format of the dates in the column, such as `yyyy-MM-dd HH:mm:ss`.
    :param timezone: timezone of those dates.
    :raises ConfigurationError: a value is empty or is not a string.
    """

    name: str
    date_format: str | None = None
    timezone: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise _invalid_delta_column("its name is empty or is not a string")
        for key, value in (("dateFormat", self.date_format), ("timezone", self.timezone)):
            if value is not None and (not isinstance(value, str) or not value.strip()):
                raise _invalid_delta_column(f"its {key} is empty or is not a string")
        for field_name in ("name", "date_format", "timezone"):
            if (value := getattr(self, field_name)) is not None:
                object.__setattr__(self, field_name, value.strip())

    @classmethod
    def parse(cls, value: str | Mapping[str, Any] | DeltaColumn) -> DeltaColumn:
        """Parse a name, or a mapping with the API's keys `name`, `dateFormat`, `timezone`, which may be JSON text.

        Adobe keeps the first delta column of a dataflow, so text that a template without a value gives is refused.

        :raises ConfigurationError: another type, an unknown key, a value that is not a string, or an empty template.
        """
        if isinstance(value, str):
            value = _value_in_text(value)
        column = value if isinstance(value, DeltaColumn) else cls._of_value(value)
        for key, text in column.to_json().items():
            if text.strip("\"'").lower() in _NOTHING:
                raise _invalid_delta_column(f"its {key} is {text!r}, so its template has no value in this DAG run")
            if "{{" in text or "{%" in text:
                raise _invalid_delta_column(f"its {key} is {text!r}, a template that was not rendered")
        return column

    @classmethod
    def _of_value(cls, value: Any) -> DeltaColumn:
        if isinstance(value, str):
            return cls(name=value)
        if not isinstance(value, Mapping):
            raise _invalid_delta_column(f"it is of type {type(value).__name__}", hint=remedy_for_list(value))
        if unknown := sorted(str(key) for key in value if key not in _DELTA_COLUMN_KEYS):
            raise _invalid_delta_column(f"it has the unknown key {', '.join(unknown)}")
        fields = {_DELTA_COLUMN_KEYS[key]: each for key, each in value.items()}
        return cls(**{"name": "", **fields})

    def to_json(self) -> dict[str, str]:
        """Return the value of `params.deltaColumn` of a request, without keys that have no value."""
        values = {"name": self.name, "dateFormat": self.date_format, "timezone": self.timezone}
        return {key: value for key, value in values.items() if value is not None}


_DELTA_COLUMN_KEYS = {"name": "name", "dateFormat": "date_format", "timezone": "timezone"}
# Texts that templates without a value render to.
_NOTHING = frozenset({"", "none", "null", "undefined", "nan"})


def _value_in_text(text: str) -> Any:
    """Return the mapping or list that a text contains as JSON or as a Python literal, otherwise the text.

    A template that refers to a dictionary renders to such text. A name in brackets, such as `[updated at]`, is neither.
    """
    if not text.strip().startswith(("{", "[", "(")):
        if text.strip().startswith("LazyXComSequence("):
            raise _invalid_delta_column(f"it is {text[:80]!r}", hint=remedy_for_list(text))
        return text
    for read in (json.loads, ast.literal_eval):
        with suppress(ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            if isinstance(value := read(text.strip()), dict | list | tuple | set):
                return value
    if text.strip().startswith("{") and "{{" not in text and "{%" not in text:
        raise _invalid_delta_column(f"it is {text[:80]!r}, which is not readable as a mapping")
    return text


def _invalid_delta_column(why: str, *, hint: str = "") -> ConfigurationError:
    remedy = (
        "set delta_column to the column's name, or to a mapping with 'name' and optionally 'dateFormat' and 'timezone'"
        f"{hint}"
    )
    return ConfigurationError(f"delta_column cannot be used: {why}", remedy=remedy)


@dataclass(frozen=True, kw_only=True)
class Flow:
    """A dataflow, from `GET /flows/{id}`.

    :param state: Adobe's state, such as `enabled` or `disabled`; empty if the response has none.
    :param frequency: `scheduleParams.frequency`, such as `once` or `hour`.
    :param delta_column: delta column of the flow's `Copy` transformation, which later runs cannot change.
    :param raw: the JSON object, for values that have no field here; cleaned, but not bounded; not in the `repr`.
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
        """Parse the JSON object of a flow.

        :raises UnreadableAnswerError: the value is not an object, or has no id.
        """
        return cls(
            id=required_id(raw, "flow"),
            name=text_at(raw, "name"),
            state=text_at(raw, "state", length=ID_LENGTH) or "",
            frequency=text_at(raw, "scheduleParams", "frequency", length=ID_LENGTH),
            delta_column=_delta_column_of_copy(raw),
            flow_spec_id=text_at(raw, "flowSpec", "id", length=ID_LENGTH),
            source_connection_ids=texts_at(raw, "sourceConnectionIds"),
            target_connection_ids=texts_at(raw, "targetConnectionIds"),
            raw=clean_json(raw),
        )

    @property
    def enabled(self) -> bool:
        """True if Flow Service executes runs of the flow. A flow without a state counts as enabled."""
        return self.state.strip().lower() in ("", "enabled")

    @property
    def one_time(self) -> bool | None:
        """True if the flow is scheduled `once`, which on-demand runs require; None if the flow has no frequency."""
        return None if self.frequency is None else self.frequency.strip().lower() == "once"


def _delta_column_of_copy(raw: Any) -> DeltaColumn | None:
    for transformation in objects_at(raw, "transformations"):
        if (text_at(transformation, "name") or "").lower() != "copy":
            continue
        name = text_at(transformation, "params", "deltaColumn", "name")
        name = name or text_at(transformation, "params", "deltaColumn")
        if name:
            return DeltaColumn(
                name=name,
                date_format=text_at(transformation, "params", "deltaColumn", "dateFormat"),
                timezone=text_at(transformation, "params", "deltaColumn", "timezone"),
            )
    return None


@dataclass(frozen=True, kw_only=True)
class FlowSpec:
    """Specification of a kind of dataflow, from `GET /flowSpecs/{id}`.

    :param run_parameters: required parameters of a new run (`runSpec.spec.required`); None if they are unknown.
    """

    id: str
    name: str | None = None
    run_parameters: tuple[str, ...] | None = None

    @classmethod
    def parse(cls, raw: Any) -> FlowSpec:
        """Parse the JSON object.

        :raises UnreadableAnswerError: the value is not an object, or has no id.
        """
        return cls(
            id=required_id(raw, "flow specification"),
            name=text_at(raw, "name"),
            run_parameters=texts_at(raw, "runSpec", "spec", "required") or None,
        )

    @property
    def needs_delta_column(self) -> bool | None:
        """True if the source is table-based, so that the first run needs a delta column; None if this is unknown."""
        return None if self.run_parameters is None else "deltaColumn" in self.run_parameters


@dataclass(frozen=True, kw_only=True)
class RunError:
    """Error that a flow run reports, such as `CONNECTOR-1001-500`."""

    code: str | None
    message: str

    def __str__(self) -> str:
        return f"{self.code}: {self.message}" if self.code else self.message


MAX_RUN_ERRORS = 20
"""Limit of the errors of one flow run; the last one states how many errors are omitted."""


def bounded_errors(errors: Iterable[RunError]) -> tuple[RunError, ...]:
    """Return the errors without duplicates. If they exceed `MAX_RUN_ERRORS`, the last one states the omitted number."""
    unique = tuple(dict.fromkeys(errors))
    if len(unique) <= MAX_RUN_ERRORS:
        return unique
    listed = unique[: MAX_RUN_ERRORS - 1]
    return (*listed, RunError(code=None, message=f"{len(unique) - len(listed):,} more errors are omitted"))


@dataclass(frozen=True, kw_only=True)
class CreatedRun:
    """Result of creating or re-triggering a run: its id, and its version for `If-Match`."""

    id: str
    etag: str | None = None


class FlowRunStatus(str, Enum):
    """State of a flow run. An unknown status is neither ended nor succeeded."""

    SCHEDULED = "scheduled"
    IN_PROGRESS = "in_progress"
    SUCCESS = "success"
    PARTIAL_SUCCESS = "partial_success"
    FAILED = "failed"
    UNKNOWN = "unknown"

    @classmethod
    def parse(cls, word: Any) -> FlowRunStatus:
        """Parse Adobe's status, ignoring case, `_`, `-` and spaces; any other value is `UNKNOWN`.

        `QUEUED` is scheduled and `COMPLETED` is a success. `PARTIAL_FAILURE` is a failure: a status that
        mentions a failure is never reported as success.
        """
        if not isinstance(word, str):
            return cls.UNKNOWN
        return _STATUS_OF_WORD.get(word.lower().translate(_IGNORED_CHARACTERS), cls.UNKNOWN)

    @property
    def ended(self) -> bool:
        """True if the run has ended."""
        return self.succeeded or self.failed

    @property
    def succeeded(self) -> bool:
        """True if the run ended and its data are ingested; includes partial success (see `failed_records`)."""
        return self in (FlowRunStatus.SUCCESS, FlowRunStatus.PARTIAL_SUCCESS)

    @property
    def failed(self) -> bool:
        """True if the run ended as failed."""
        return self is FlowRunStatus.FAILED


_IGNORED_CHARACTERS = str.maketrans("", "", "_- \t\r\n")
_STATUS_OF_WORD = {
    "scheduled": FlowRunStatus.SCHEDULED,
    "queued": FlowRunStatus.SCHEDULED,
    "inprogress": FlowRunStatus.IN_PROGRESS,
    "success": FlowRunStatus.SUCCESS,
    "completed": FlowRunStatus.SUCCESS,
    "partialsuccess": FlowRunStatus.PARTIAL_SUCCESS,
    "failed": FlowRunStatus.FAILED,
    "partialfailure": FlowRunStatus.FAILED,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class FlowRun:
    """A flow run, from `GET /runs/{id}` or `GET /runs`.

    Instants are aware UTC datetimes, or None. Counts are records, bytes and files, or None if the response
    has no count or `-1`, which means unknown.

    :param status_word: Adobe's own status, for messages; empty if the response has none (a scheduled run).
    :param created_client: client id that created the run; runs that the service created have
        `acp_foundation_connectors`.
    :param window: window of the run, from `params`, or from an activity if `params` has none. None if the response
        has no window, or an invalid one.
    :param start_time: requested start of the run, if the response has it.
    :param errors: errors of the run and of its activities, without duplicates, at most `MAX_RUN_ERRORS`. May contain
        the customer's host names.
    :param batch_ids: batches that the run wrote to the data lake, at most 1,000.
    :param parent_id: run that this run belongs to.
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
        """Parse the JSON object of a flow run.

        A run without a status is `SCHEDULED`, with an empty `status_word`.

        :param briefly: if the run has not ended, parse only id, dataflow and status.
        :raises UnreadableAnswerError: the value is not an object, or has no id.
        """
        run_id = required_id(raw, "flow run")
        metrics = value_at(raw, "metrics")
        word = text_at(metrics, "statusSummary", "status", length=ID_LENGTH)
        word = word or text_at(raw, "status", length=ID_LENGTH) or ""
        status = FlowRunStatus.parse(word) if word else FlowRunStatus.SCHEDULED
        if briefly and not status.ended:
            return cls(id=run_id, flow_id=text_at(raw, "flowId", length=ID_LENGTH), status=status, status_word=word)
        activities = tuple(_activities(raw))
        return cls(
            id=run_id,
            flow_id=text_at(raw, "flowId", length=ID_LENGTH),
            status=status,
            status_word=word,
            created_client=text_at(raw, "createdClient", length=ID_LENGTH),
            window=_window(raw, activities),
            errors=bounded_errors(_errors(raw, activities)),
            batch_ids=tuple(islice(dict.fromkeys(_batch_ids(activities)), _MAX_BATCHES)),
            parent_id=text_at(raw, "parentFlowRunId", length=ID_LENGTH),
            etag=etag_of(raw),
            **_instants(raw, value_at(metrics, "durationSummary")),
            **dict(_counts(metrics)),
        )


_MAX_BATCHES = 1000


def etag_of(raw: Any) -> str | None:
    """Return the version of an object, which has two spellings in Adobe's pages."""
    return text_at(raw, "etag", length=ID_LENGTH) or text_at(raw, "eTag", length=ID_LENGTH)


def _instants(raw: Any, durations: Any) -> dict[str, Any]:
    return {
        "created_at": instant_at(raw, "createdAt"),
        "start_time": instant_at(raw, "params", "startTime"),
        "updated_at": instant_at(raw, "updatedAt"),
        "started_at": instant_at(durations, "startedAtUTC"),
        "completed_at": instant_at(durations, "completedAtUTC"),
    }


def _counts(metrics: Any) -> Iterator[tuple[str, Any]]:
    for summary, names in _COUNTS.items():
        for name, key in names.items():
            yield name, count_at(metrics, summary, key)


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
    # Adobe's OpenAPI file spells the key `activites` in one place.
    for key in ("activities", "activites"):
        yield from objects_at(raw, key)


def _window(raw: Any, activities: tuple[Mapping[str, Any], ...]) -> IngestionWindow | None:
    extensions = ("durationSummary", "extensions")
    pairs = [(instant_at(raw, "params", key, zero=True) for key in ("windowStartTime", "windowEndTime"))]
    for activity in activities:
        pairs.append(instant_at(activity, *extensions, key, zero=True) for key in ("windowStart", "windowEnd"))
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
    for error in objects_at(raw, *path):
        message = text_at(error, "message") or text_at(error, "errorMessage")
        code = text_at(error, "code", length=ID_LENGTH) or text_at(error, "errorCode", length=ID_LENGTH)
        if message or code:
            yield RunError(code=code, message=message or "no message")


def _batch_ids(activities: tuple[Mapping[str, Any], ...]) -> Iterator[str]:
    for activity in activities:
        for target in objects_at(activity, "targetInfo"):
            reference = value_at(target, "reference")
            yield from texts_at(reference, "ids")
