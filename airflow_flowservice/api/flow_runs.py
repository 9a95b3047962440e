# SPDX-License-Identifier: Apache-2.0
"""Flow runs, their status, metrics and errors, parsed from Flow Service's JSON.

Parsing is lenient: a missing or unexpected value becomes `None` or empty, because Adobe's pages and samples
differ from each other. Only an object without an id is refused.
Texts are printable and bounded (`plain_text`), and a flow run has at most `MAX_RUN_ERRORS` errors.

Errors are read from each place where Adobe's documents and samples have them. The first sentence is often general
(`Error in copying the data from Source.`), and the cause is in another place.
Sources: https://developer.adobe.com/experience-platform-apis/references/flow-service/,
https://experienceleague.adobe.com/en/docs/experience-platform/sources/api-tutorials/monitor and
https://experienceleague.adobe.com/en/docs/experience-platform/observability/alerts/rules
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from itertools import islice
from typing import TYPE_CHECKING, Any

from airflow_flowservice.api.json_values import (
    count_at,
    instant_at,
    objects_at,
    required_id,
    text_at,
    texts_at,
    value_at,
)
from airflow_flowservice.plain_text import ID_LENGTH, canonical_id
from airflow_flowservice.windows.window import IngestionWindow

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime

    from airflow_flowservice.api.catalog import CatalogBatch


@dataclass(frozen=True, kw_only=True)
class CreatedRun:
    """Result of creating or re-triggering a run: its id, and its version for `If-Match`."""

    id: str
    etag: str | None = None


class FlowRunStatus(str, Enum):
    """State of a flow run.

    An unknown status is neither ended nor succeeded. `ENDED_UNCLEAR` has ended, and is neither succeeded nor failed:
    the run has a completion time and no status, so its data may be ingested or not.
    """

    SCHEDULED = "scheduled"
    IN_PROGRESS = "in_progress"
    SUCCESS = "success"
    PARTIAL_SUCCESS = "partial_success"
    FAILED = "failed"
    ENDED_UNCLEAR = "ended_unclear"
    UNKNOWN = "unknown"

    @classmethod
    def parse(cls, word: Any) -> FlowRunStatus:
        """Parse Adobe's status, ignoring case, `_`, `-` and spaces; any other value is `UNKNOWN`.

        `QUEUED` is scheduled, `COMPLETED` and `succeeded` are successes. `PARTIAL_FAILURE` is a failure: a status that
        mentions a failure is never reported as success.
        """
        if not isinstance(word, str):
            return cls.UNKNOWN
        return _STATUS_OF_WORD.get(word.lower().translate(_IGNORED_CHARACTERS), cls.UNKNOWN)

    @property
    def ended(self) -> bool:
        """Return True if the run has ended."""
        return self.succeeded or self.failed or self is FlowRunStatus.ENDED_UNCLEAR

    @property
    def succeeded(self) -> bool:
        """Return True if the run ended and ingested data, also as a partial success (see `failed_records`)."""
        return self in (FlowRunStatus.SUCCESS, FlowRunStatus.PARTIAL_SUCCESS)

    @property
    def failed(self) -> bool:
        """Return True if the run ended as failed."""
        return self is FlowRunStatus.FAILED


_IGNORED_CHARACTERS = str.maketrans("", "", "_- \t\r\n")
_STATUS_OF_WORD = {
    "scheduled": FlowRunStatus.SCHEDULED,
    "queued": FlowRunStatus.SCHEDULED,
    "inprogress": FlowRunStatus.IN_PROGRESS,
    "success": FlowRunStatus.SUCCESS,
    "succeeded": FlowRunStatus.SUCCESS,
    "completed": FlowRunStatus.SUCCESS,
    "partialsuccess": FlowRunStatus.PARTIAL_SUCCESS,
    "failed": FlowRunStatus.FAILED,
    "partialfailure": FlowRunStatus.FAILED,
    # Not a status of Adobe: the value that summaries carry.
    "endedunclear": FlowRunStatus.ENDED_UNCLEAR,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class FlowRun:
    """A flow run, from `GET /runs/{id}` or `GET /runs`.

    Instants are aware UTC datetimes, or None. Counts are records, bytes and files, or None if the response
    has no count or `-1`, which means unknown.

    :param status_word: Adobe's own status, for messages; empty if the response has none (a scheduled run). For a run
        that has ended without a status, a text that states this.
    :param created_client: client id that created the run; runs that the service created have
        `acp_foundation_connectors`.
    :param window: window of the run, from `params`, or from an activity if `params` has none. None if the response
        has no window, or an invalid one.
    :param start_time: requested start of the run, if the response has it.
    :param errors: errors of the run and of its activities, without duplicates, at most `MAX_RUN_ERRORS`. May contain
        the customer's host names.
    :param failed_records_derived: True if the response has no `failed_records`, and they are the records that were
        read and are in no other count.
    :param batch_ids: batches that the run wrote to the data lake, at most 1,000.
    :param parent_id: run that this run belongs to.
    :param batches: batches in the catalogue, if the caller read them (`wait_for_batch`); never parsed from a run.
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
    updated_records: int | None = None
    skipped_records: int | None = None
    deleted_records: int | None = None
    failed_records_derived: bool = False
    errors: tuple[RunError, ...] = ()
    batch_ids: tuple[str, ...] = ()
    parent_id: str | None = None
    etag: str | None = None
    batches: tuple[CatalogBatch, ...] = ()

    @classmethod
    def parse(cls, raw: Any, *, briefly: bool = False) -> FlowRun:
        """Parse the JSON object of a flow run.

        The status is `metrics.statusSummary.status`, otherwise `status`, otherwise `state` (older documents).
        A run without a status is `SCHEDULED`, with an empty `status_word`. If it has a completion time, its status is
        that of its activities, or `ENDED_UNCLEAR`.

        :param briefly: if the run has not ended and its status is known, parse only id, dataflow and status.
        :raises UnreadableAnswerError: the value is not an object, or has no id.
        """
        run_id = canonical_id(required_id(raw, "flow run"))
        metrics = value_at(raw, "metrics")
        status, word = _status(raw, metrics)
        if briefly and not status.ended and status is not FlowRunStatus.UNKNOWN:
            return cls(id=run_id, flow_id=_id_at(raw, "flowId"), status=status, status_word=word)
        activities = tuple(_activities(raw))
        return cls(
            id=run_id,
            flow_id=_id_at(raw, "flowId"),
            status=status,
            status_word=word,
            created_client=text_at(raw, "createdClient", length=ID_LENGTH),
            window=_window(raw, activities),
            errors=bounded_errors(errors_of_run(raw, activities)),
            batch_ids=tuple(islice(dict.fromkeys(_batch_ids(metrics, activities)), _MAX_BATCHES)),
            parent_id=_id_at(raw, "parentFlowRunId"),
            etag=etag_of(raw),
            **_instants(raw, value_at(metrics, "durationSummary")),
            **_counts(metrics, has_ended=status.ended),
        )

    @classmethod
    def parse_id(cls, raw: Any) -> FlowRun:
        """Parse only id, dataflow and time of creation of a flow run's JSON object.

        :raises UnreadableAnswerError: as `parse`.
        """
        return cls(
            id=canonical_id(required_id(raw, "flow run")),
            flow_id=_id_at(raw, "flowId"),
            created_at=instant_at(raw, "createdAt"),
        )


_MAX_BATCHES = 1000
# Such as `{platform}/data/foundation/export/batches/{BATCH}/meta?path=row_errors`.
_BATCH_IN_ADDRESS = re.compile(r"/batches/([\w-]{1,200})(?=[/?#]|$)", re.ASCII)
_ADDRESS_LENGTH = 2000
_MANIFEST_DEPTH = 3


def etag_of(raw: Any) -> str | None:
    """Return the version of an object, which has two spellings in Adobe's pages."""
    return text_at(raw, "etag", length=ID_LENGTH) or text_at(raw, "eTag", length=ID_LENGTH)


def _id_at(raw: Any, key: str) -> str | None:
    found = text_at(raw, key, length=ID_LENGTH)
    return None if found is None else canonical_id(found)


def _instants(raw: Any, durations: Any) -> dict[str, Any]:
    return {
        "created_at": instant_at(raw, "createdAt"),
        "start_time": instant_at(raw, "params", "startTime"),
        "updated_at": instant_at(raw, "updatedAt"),
        "started_at": instant_at(durations, "startedAtUTC"),
        "completed_at": instant_at(durations, "completedAtUTC"),
    }


def _status(raw: Any, metrics: Any) -> tuple[FlowRunStatus, str]:
    """Return the status, and the word for messages."""
    word = text_at(metrics, "statusSummary", "status", length=ID_LENGTH)
    word = word or text_at(raw, "status", length=ID_LENGTH) or text_at(raw, "state", length=ID_LENGTH)
    if word:
        return FlowRunStatus.parse(word), word
    if instant_at(metrics, "durationSummary", "completedAtUTC") is None:
        return FlowRunStatus.SCHEDULED, ""
    status = _status_of_activities(_activities(raw))
    if status is None:
        return FlowRunStatus.ENDED_UNCLEAR, "ended without a status"
    return status, f"{status.value} (according to its activities)"


def _status_of_activities(activities: Iterable[Mapping[str, Any]]) -> FlowRunStatus | None:
    """Return the status of a run whose activities have all ended, or None: a failure if one has failed."""
    statuses = {FlowRunStatus.parse(value_at(activity, "statusSummary", "status")) for activity in activities}
    if FlowRunStatus.FAILED in statuses:
        return FlowRunStatus.FAILED
    if not statuses or not all(status.succeeded for status in statuses):
        return None
    is_partial = FlowRunStatus.PARTIAL_SUCCESS in statuses
    return FlowRunStatus.PARTIAL_SUCCESS if is_partial else FlowRunStatus.SUCCESS


def _counts(metrics: Any, *, has_ended: bool) -> dict[str, Any]:
    counts: dict[str, Any] = {
        name: count_at(metrics, summary, key) for summary, names in _COUNTS.items() for name, key in names.items()
    }
    created = counts.pop("created_records")
    if has_ended and counts["failed_records"] is None and (failed := _unaccounted(counts, created=created)):
        counts.update(failed_records=failed, failed_records_derived=True)
    return counts


def _unaccounted(counts: Mapping[str, int | None], *, created: int | None) -> int:
    """Return the number of input records that no other count contains; zero if the input or output is unknown.

    The output count of an Identity run omits updated records, and that of other runs contains created records.
    """
    read, written = counts["input_records"], counts["output_records"]
    if read is None or written is None:
        return 0
    changed = (created or 0) + (counts["updated_records"] or 0) + (counts["deleted_records"] or 0)
    return max(0, read - max(written, changed) - (counts["skipped_records"] or 0))


_COUNTS = {
    "recordSummary": {
        "input_records": "inputRecordCount",
        "output_records": "outputRecordCount",
        "failed_records": "failedRecordCount",
        "created_records": "createdRecordCount",
        "updated_records": "updatedRecordCount",
        "skipped_records": "skippedRecordCount",
        "deleted_records": "deletedRecordCount",
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
    pairs = [[instant_at(raw, "params", key, zero=True) for key in ("windowStartTime", "windowEndTime")]]
    for activity in activities:
        pairs.append([instant_at(activity, *extensions, key, zero=True) for key in ("windowStart", "windowEnd")])
    for start, end in pairs:
        if start is not None and end is not None:
            return IngestionWindow.if_valid(start, end)
    return None


def _batch_ids(metrics: Any, activities: tuple[Mapping[str, Any], ...]) -> Iterator[str]:
    """Yield the batches: of the targets, then of the extensions, then those in the addresses of the manifests."""
    for activity in activities:
        for target in objects_at(activity, "targetInfo"):
            yield from texts_at(target, "reference", "ids")
    parts = [value_at(part, summary) for part in (metrics, *activities) for summary in ("statusSummary", "fileSummary")]
    for part in parts:
        for text in texts_at(part, "extensions", "batchId"):
            yield from (batch for each in text.split(",") if (batch := each.strip()))
    for part in parts:
        for manifest in (value_at(part, "extensions", "manifest"), value_at(part, "manifest")):
            yield from _batches_in_addresses(manifest)


def _batches_in_addresses(value: Any, *, depth: int = _MANIFEST_DEPTH) -> Iterator[str]:
    if isinstance(value, str):
        yield from _BATCH_IN_ADDRESS.findall(value[:_ADDRESS_LENGTH])
    elif depth and isinstance(value, dict | list):
        for each in islice(value.values() if isinstance(value, dict) else value, _MAX_BATCHES):
            yield from _batches_in_addresses(each, depth=depth - 1)


# --- errors ---

MAX_RUN_ERRORS = 20
"""Limit of the errors of one flow run; the last one states how many errors are omitted."""

_NO_MESSAGE = "no message"
_CODES = ("code", "errorCode", "error_code")
# Names of a message, also those of Adobe's other error formats.
_MESSAGES = ("message", "errorMessage", "error_description", "detail", "detailed-message", "reason", "title")
_CODE = re.compile(r"[A-Z][A-Z_]*-\d{3,6}(-\d{3})?")
_MAX_ERROR_DEPTH = 2
# The places in `metrics` and in each activity, general errors first.
_ERROR_PLACES = (
    ("statusSummary", "errors"),
    ("statusSummary", "extensions", "errors"),
    ("recordSummary", "failedInfo"),
    ("statusSummary", "extensions", "errorDetail"),
    ("statusSummary", "extensions", "errorDetails"),
    ("extensions", "errors"),
    ("extensions", "errorDetail"),
)


@dataclass(frozen=True, kw_only=True)
class RunError:
    """Error that a flow run reports, such as `CONNECTOR-1001-500`."""

    code: str | None
    message: str

    def __str__(self) -> str:
        return f"{self.code}: {self.message}" if self.code else self.message


def bounded_errors(errors: Iterable[RunError]) -> tuple[RunError, ...]:
    """Return the errors without duplicates. If they exceed `MAX_RUN_ERRORS`, the last one states the omitted number.

    Sentences that differ only in case, spaces and the final period are the same. An error without a code is a duplicate
    of one that has a code and the same sentence.
    """
    distinct: dict[tuple[str, str | None], RunError] = {}
    for error in errors:
        distinct.setdefault((_normalized(error.message), error.code), error)
    with_code = {sentence for sentence, code in distinct if code is not None}
    unique = tuple(
        error for (sentence, code), error in distinct.items() if code is not None or sentence not in with_code
    )
    if len(unique) <= MAX_RUN_ERRORS:
        return unique
    listed = unique[: MAX_RUN_ERRORS - 1]
    return (*listed, RunError(code=None, message=f"{len(unique) - len(listed):,} more errors are omitted"))


def error_texts(errors: Iterable[RunError]) -> list[str]:
    """Return each sentence once, after the codes of all errors that have it, such as `C-1, C-2: Job aborted.`"""
    groups: dict[str, list[RunError]] = {}
    for error in errors:
        groups.setdefault(_normalized(error.message), []).append(error)
    found = []
    for group in groups.values():
        codes = ", ".join(error.code for error in group if error.code)
        found.append(f"{codes}: {group[0].message}" if codes else group[0].message)
    return found


def errors_of_run(raw: Any, activities: Iterable[Mapping[str, Any]]) -> Iterator[RunError]:
    """Yield the errors of a run's JSON object and of its activities, also those that repeat a sentence."""
    for part in (value_at(raw, "metrics"), *activities):
        for place in _ERROR_PLACES:
            yield from _errors_in(value_at(part, *place))
    yield from _errors_in(value_at(raw, "extensions", "errors"))
    yield from _errors_in(value_at(raw, "extensions", "errorDetail"))


def _errors_in(value: Any, *, depth: int = _MAX_ERROR_DEPTH) -> Iterator[RunError]:
    """Yield the errors of a list, an object or a text."""
    if value is None:
        return
    for error in value if isinstance(value, list) else [value]:
        if isinstance(error, str) and (text := text_at({"text": error}, "text")):
            yield RunError(code=None, message=text)
        code = next(filter(None, (text_at(error, key, length=ID_LENGTH) for key in _CODES)), None)
        message = _message_of(error)
        nested = value_at(error, "error") or value_at(error, "errors")
        if message is None and depth and isinstance(nested, dict | list):
            yield from _errors_in(nested, depth=depth - 1)
        elif message or code:
            yield RunError(code=code, message=message or _NO_MESSAGE)
        elif isinstance(error, dict):
            yield from _errors_by_code(error)


def _errors_by_code(errors: Mapping[str, Any]) -> Iterator[RunError]:
    """Yield the errors of an object whose names are codes, such as `{"CONNECTOR-1001-500": "..."}`."""
    for name, value in errors.items():
        message = text_at(errors, name) if isinstance(value, str) else _message_of(value)
        if message and _CODE.fullmatch(str(name)):
            yield RunError(code=str(name), message=message)


def _message_of(error: Any) -> str | None:
    message = next(filter(None, (_joined_text(error, key) for key in _MESSAGES)), None)
    description = text_at(error, "description")
    if message and description and _normalized(message) != _normalized(description):
        return f"{message.rstrip('.')}: {description}"
    return message or description


def _joined_text(error: Any, key: str) -> str | None:
    """Return a text, or the texts of a list as one."""
    value = value_at(error, key)
    if not isinstance(value, list):
        return text_at(error, key)
    return text_at({key: "; ".join(each for each in value[:MAX_RUN_ERRORS] if isinstance(each, str))}, key)


def _normalized(message: str) -> str:
    return " ".join(message.split()).rstrip(" .").casefold()
