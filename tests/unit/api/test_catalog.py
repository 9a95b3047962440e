# SPDX-License-Identifier: Apache-2.0
"""Batches of the catalogue: Adobe's shapes, and values of any other shape."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_flowservice.api.catalog import BatchStatus, CatalogBatch, batches_in

BATCH = "01JZ7Q5N2E8C4T6V9W3X5Y7Z2A"
PARTIAL = {
    "status": "success",
    "tags": {"acp_enableErrorDiagnostics": True, "acp_partialIngestionPercent": 5},
    "metrics": {"inputRecordCount": 90, "outputRecordCount": 87, "failedRecordCount": 3},
    "errors": [
        {"code": "INGEST-1212-400", "description": "3 rows have errors"},
        {"code": "INGEST-1401-400", "description": "a row cannot be parsed", "recordCount": 1},
        {"code": "INGEST-1555-400", "description": "a field is missing", "recordCount": 2},
    ],
}


def parsed(raw: Any) -> CatalogBatch:
    return CatalogBatch.parse(raw, batch_id=BATCH)


@pytest.mark.parametrize(
    ("word", "status"),
    [
        *((word, BatchStatus.SUCCESS) for word in ("success", "active", "SUCCESS")),
        *((word, BatchStatus.FAILED) for word in ("failed", "failure", "aborted", "abandoned", "inactive")),
        *((word, BatchStatus.IN_PROGRESS) for word in ("loading", "loaded", "staging", "retrying", "stalled")),
        *((word, BatchStatus.UNKNOWN) for word in ("molten", "", None, 7, [])),
    ],
)
def test_only_final_words_end_the_wait(word: Any, status: BatchStatus) -> None:
    assert (status, status in (BatchStatus.SUCCESS, BatchStatus.FAILED)) == (
        parsed({"status": word}).status,
        parsed({"status": word}).status.ended,
    )


def test_counts_threshold_and_errors() -> None:
    batch = parsed(PARTIAL)
    assert (90, 87, 3, 5) == (
        batch.input_records,
        batch.output_records,
        batch.failed_records,
        batch.threshold_percent,
    )
    assert [("INGEST-1212-400", None), ("INGEST-1401-400", 1), ("INGEST-1555-400", 2)] == [
        (error.code, error.records) for error in batch.errors
    ]
    assert (
        f"batch {BATCH} is success, 87 records written, 3 records failed, error threshold 5 %: "
        "INGEST-1212-400: 3 rows have errors; INGEST-1401-400: a row cannot be parsed (1 record); "
        "INGEST-1555-400: a field is missing (2 records)"
    ) == batch.describe()


@pytest.mark.parametrize("value", [["12"], [12], "12", 12])
def test_tags_are_lists_or_plain_values(value: Any) -> None:
    assert 12 == parsed({"tags": {"acp_partialIngestionPercent": value}}).threshold_percent


@pytest.mark.parametrize("raw", [None, [], "x", {}, {"errors": "x", "metrics": [], "tags": 1}, {"errors": [{}, 1]}])
def test_unexpected_values_are_not_known(raw: Any) -> None:
    assert CatalogBatch(id=BATCH) == parsed(raw)


def test_response_is_keyed_by_id() -> None:
    """A batch that was not requested is ignored."""
    found = {BATCH: PARTIAL, "other": {"status": "failed"}}
    assert [parsed(PARTIAL)] == list(batches_in(found, {BATCH, "third"}))
    assert [] == list(batches_in({BATCH: "success"}, {BATCH}))
