# SPDX-License-Identifier: Apache-2.0
"""Batches of the data lake, from `GET /batches/{ids}` of Adobe's Catalog Service.

Parsing is lenient, as in `models`. A batch's status decides whether its records are in the dataset.
Sources: https://experienceleague.adobe.com/en/docs/experience-platform/catalog/api/look-up-multiple-objects and, for
the words of the status, https://experienceleague.adobe.com/en/docs/experience-platform/ingestion/batch/troubleshooting
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from itertools import islice
from typing import TYPE_CHECKING, Any

from airflow_flowservice.api.json_values import count_at, objects_at, text_at, value_at
from airflow_flowservice.plain_text import ID_LENGTH

if TYPE_CHECKING:
    from collections.abc import Iterator

CATALOG_ROOT = "/data/foundation/catalog"
PROPERTIES = "properties=status,errors,metrics,tags"
"""Query of the properties that `CatalogBatch` has. Adobe recommends to request only those."""
_MAX_BATCH_ERRORS = 20


class BatchStatus(str, Enum):
    """State of a batch in the catalogue. An unknown status has not ended."""

    SUCCESS = "success"
    FAILED = "failed"
    IN_PROGRESS = "in_progress"
    UNKNOWN = "unknown"

    @classmethod
    def parse(cls, word: str | None) -> BatchStatus:
        """Parse Adobe's status, ignoring case. `active` is another word for `success`."""
        return _STATUS_OF_WORD.get((word or "").lower(), cls.UNKNOWN)

    @property
    def ended(self) -> bool:
        """Return True if the status is final."""
        return self in (BatchStatus.SUCCESS, BatchStatus.FAILED)


# `inactive` means that the batch was reverted or has expired, so its records are not in the dataset.
_STATUS_OF_WORD = {
    **dict.fromkeys(("success", "active"), BatchStatus.SUCCESS),
    **dict.fromkeys(("failed", "failure", "aborted", "abandoned", "inactive"), BatchStatus.FAILED),
    **dict.fromkeys(
        ("loading", "loaded", "queued", "processing", "staging", "staged", "retrying", "stalled"),
        BatchStatus.IN_PROGRESS,
    ),
}


@dataclass(frozen=True, kw_only=True)
class BatchError:
    """Error of a batch, such as `INGEST-1212-400`.

    :param records: number of records with this error; None if the catalogue does not report it.
    """

    code: str | None
    message: str
    records: int | None = None

    def __str__(self) -> str:
        text = f"{self.code}: {self.message}" if self.code else self.message
        return text if self.records is None else f"{text} ({self.records:,} record{'' if self.records == 1 else 's'})"


@dataclass(frozen=True, kw_only=True, slots=True)
class CatalogBatch:
    """Batch of records, as the catalogue reports it.

    :param status_word: Adobe's own status, for messages; empty if the response has none.
    :param errors: at most 20.
    :param threshold_percent: percentage of failed records from which on the batch fails (partial ingestion).
    """

    id: str
    status: BatchStatus = BatchStatus.UNKNOWN
    status_word: str = ""
    errors: tuple[BatchError, ...] = ()
    input_records: int | None = None
    output_records: int | None = None
    failed_records: int | None = None
    threshold_percent: int | None = None

    @classmethod
    def parse(cls, raw: Any, *, batch_id: str) -> CatalogBatch:
        """Parse the value of a batch id in the response."""
        word = text_at(raw, "status", length=ID_LENGTH) or ""
        return cls(
            id=batch_id,
            status=BatchStatus.parse(word),
            status_word=word,
            errors=tuple(islice(dict.fromkeys(_errors(raw)), _MAX_BATCH_ERRORS)),
            input_records=count_at(raw, "metrics", "inputRecordCount"),
            output_records=count_at(raw, "metrics", "outputRecordCount"),
            failed_records=count_at(raw, "metrics", "failedRecordCount"),
            threshold_percent=_threshold(raw),
        )

    def describe(self) -> str:
        """Return one sentence part for messages: id, status, counts, threshold and errors."""
        counts = ((self.output_records, "written"), (self.failed_records, "failed"))
        parts = [f"batch {self.id} is {self.status_word or 'without a status'}"]
        parts += [f"{count:,} records {verb}" for count, verb in counts if count is not None]
        if self.threshold_percent is not None:
            parts.append(f"error threshold {self.threshold_percent} %")
        errors = "; ".join(map(str, self.errors))
        return f"{', '.join(parts)}: {errors}" if errors else ", ".join(parts)


def batches_in(found: Any, ids: set[str]) -> Iterator[CatalogBatch]:
    """Yield the requested batches of a response, which is an object keyed by id."""
    for batch_id in ids:
        if isinstance(value_at(found, batch_id), dict):
            yield CatalogBatch.parse(value_at(found, batch_id), batch_id=batch_id)


def _errors(raw: Any) -> Iterator[BatchError]:
    for error in objects_at(raw, "errors"):
        code = text_at(error, "code", length=ID_LENGTH)
        message = text_at(error, "description") or text_at(error, "message")
        if code or message:
            yield BatchError(code=code, message=message or "no message", records=count_at(error, "recordCount"))


def _threshold(raw: Any) -> int | None:
    """Return the threshold; tags are lists of texts in some of Adobe's examples, and plain values in others."""
    value = value_at(raw, "tags", "acp_partialIngestionPercent")
    return count_at({"percent": value[0] if isinstance(value, list) and value else value}, "percent")
