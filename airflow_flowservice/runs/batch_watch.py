# SPDX-License-Identifier: Apache-2.0
"""Wait until the catalogue shows that the batches of a succeeded flow run have ended.

A flow run writes batches to the data lake, and the catalogue has their status. A "batch" in this module is one of
those. `batch_reader` reads several of them with one request.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

from airflow_flowservice.api.catalog import BatchStatus
from airflow_flowservice.api.validation import is_identifier
from airflow_flowservice.exceptions import BatchNotFoundError, FlowServiceError
from airflow_flowservice.runs.batch_reader import CATALOG_BATCHES, BatchReader

if TYPE_CHECKING:
    from airflow_flowservice.api.catalog import CatalogBatch
    from airflow_flowservice.api.models import FlowRun

    BatchResults = Mapping[str, CatalogBatch | FlowServiceError]

log = logging.getLogger(__name__)

# A batch may take some minutes to show in the catalogue, as a new flow run does in its list.
NOT_YET_LISTED = 300.0
# About a hundred ids fit into one address.
_IDS_PER_REQUEST = 100


class ReadBatches(Protocol):
    """Reads batches, for example `CatalogReader.read`."""

    def __call__(self, wanted: Mapping[str, bool], /, *, within_s: float | None) -> BatchResults:
        """Return each batch, or the error from reading it; `within_s` limits all requests, in seconds."""


class CatalogReader:
    """Reads batches of the catalogue, in the form that `BatchReader` needs.

    :param list_batches: for example `FlowServiceClient.list_batches`.
    """

    def __init__(self, list_batches: Callable[..., list[CatalogBatch]]) -> None:
        self._list_batches = list_batches

    def get_run(self, batch_id: str, /, *, within_s: float) -> CatalogBatch:
        """Read one batch, within some seconds."""
        for batch in self._list_batches([batch_id], within_s=within_s):
            return batch
        raise BatchNotFoundError(f"the catalogue does not have batch {batch_id}")

    def list_runs(self, *, ids: Iterable[str], within_s: float, **_: Any) -> list[CatalogBatch]:
        """Read these batches with one request, within some seconds."""
        return self._list_batches(ids, within_s=within_s)

    def read(self, wanted: Mapping[str, bool], /, *, within_s: float | None = None) -> BatchResults:
        """Return each batch, or the error from reading it, for one waiter that shares no requests.

        :param wanted: as for `BatchReader.read`.
        :param within_s: limit in seconds for all requests together.
        """
        reader: BatchReader[CatalogBatch] = BatchReader(self, kind=CATALOG_BATCHES)
        ends_at = time.monotonic() + (math.inf if within_s is None else within_s)
        remaining, results = iter(wanted.items()), {}
        while part := dict(islice(remaining, _IDS_PER_REQUEST)):
            results.update(reader.read(part, within_s=ends_at - time.monotonic()))
        return results


def has_failed_batches(run: FlowRun, read: ReadBatches) -> bool:
    """Return whether nothing of a succeeded run is ingested, because all its batches failed in the catalogue.

    If a batch cannot be read, the result is False, so that no second run is created.
    """
    if not run.status.succeeded or not run.batch_ids or not all(map(is_identifier, run.batch_ids)):
        return False
    results = read(dict.fromkeys(run.batch_ids, True), within_s=None)
    for batch_id, result in results.items():
        if isinstance(result, FlowServiceError):
            log.warning("Batch %s of flow run %s could not be read: %s", batch_id, run.id, result)
    return {getattr(results.get(each), "status", None) for each in run.batch_ids} == {BatchStatus.FAILED}


@dataclass(kw_only=True, slots=True)
class BatchWatch:
    """State of waiting for the batches of one flow run.

    :param error_budget: seconds without a valid response after which waiting ends.
    """

    error_budget: float
    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    _batches: dict[str, CatalogBatch | None] = field(default_factory=dict, init=False)
    _last_valid: float | None = field(default=None, init=False)
    _seen: bool = field(default=False, init=False)
    _logged: dict[str, str] = field(default_factory=dict, init=False)

    def begin(self, run: FlowRun) -> bool:
        """Take the batches of a run that has ended. Return False if there is nothing to wait for.

        :raises BatchNotFoundError: the run wrote records and shows no batch for some minutes, or an invalid batch id.
        """
        if not run.status.succeeded:
            return False
        if self._last_valid is None:
            self._last_valid = self.monotonic()
        if invalid := [each for each in run.batch_ids if not is_identifier(each)]:
            raise BatchNotFoundError(f"the flow run shows the batch id {invalid[0]!r}, which cannot be requested")
        self._batches = {each: self._batches.get(each) for each in run.batch_ids}
        if self._batches:
            return True
        if (run.input_records if run.output_records is None else run.output_records) == 0:
            log.info("Flow run %s has no records, and no batch to wait for", run.id)
            return False
        if self.monotonic() - self._last_valid >= NOT_YET_LISTED:
            raise BatchNotFoundError("the flow run succeeded and shows no batch, so the catalogue cannot be queried")
        self._log_once(run.id, "succeeded and shows no batch yet; continuing to wait")
        return True

    @property
    def pending(self) -> dict[str, bool]:
        """Return the ids of the batches that have not ended, and whether each could be read before."""
        return {
            batch_id: batch is not None
            for batch_id, batch in self._batches.items()
            if batch is None or not batch.status.ended
        }

    @property
    def batches(self) -> tuple[CatalogBatch, ...]:
        """Return the batches that could be read."""
        return tuple(batch for batch in self._batches.values() if batch is not None)

    def poll(self, read: ReadBatches, *, within_s: float | None = None) -> bool:
        """Read the pending batches one time. Return whether all batches have ended.

        :param within_s: limit in seconds for all requests of the read.
        :raises BatchNotFoundError: the catalogue does not have a batch.
        :raises FlowServiceError: no valid response for `error_budget` seconds, or an error that waiting cannot fix.
        """
        results = read(self.pending, within_s=within_s)
        errors = []
        for batch_id, result in results.items():
            if isinstance(result, FlowServiceError):
                errors.append((batch_id, result))
            else:
                self._take(batch_id, result)
        if not errors:
            self._last_valid = self.monotonic()
        for batch_id, error in errors:
            self._handle_error(batch_id, error)
        return not self.pending

    def describe_pending(self) -> str:
        """Return the status of the batches that have not ended, for a message."""
        return ", ".join(islice(self._describe_pending(), 5)) or "no batch shows yet"

    def to_json(self) -> dict[str, Any]:
        """Return the state that the next process needs: `seen`, and `good` (epoch seconds of the last success)."""
        last_valid = self.monotonic() if self._last_valid is None else self._last_valid
        return {"seen": self._seen, "good": self.wall() - (self.monotonic() - last_valid)}

    def restore(self, value: Any) -> None:
        """Continue from the state that an earlier process stored; ignore any other value."""
        try:
            silent = max(0.0, self.wall() - value["good"])
            self._seen = bool(value["seen"])
        except (KeyError, TypeError):
            return
        self._last_valid = self.monotonic() - silent

    def _describe_pending(self) -> Iterator[str]:
        for batch_id in self.pending:
            batch = self._batches[batch_id]
            yield f"batch {batch_id} is {batch.status_word or 'without a status'}" if batch else f"batch {batch_id}"

    def _take(self, batch_id: str, batch: CatalogBatch) -> None:
        self._batches[batch_id], self._seen = batch, True
        unknown = " (unknown)" if batch.status.value == "unknown" else ""
        end = "" if batch.status.ended else "; continuing to wait"
        self._log_once(batch_id, f"{batch.status_word or 'without a status'}{unknown}{end}")

    def _handle_error(self, batch_id: str, error: FlowServiceError) -> None:
        last_valid = self.monotonic() if self._last_valid is None else self._last_valid
        if isinstance(error, BatchNotFoundError):
            # A batch that could be read before was deleted.
            budget = 0.0 if self._batches.get(batch_id) else NOT_YET_LISTED
        else:
            # If a batch could be read before, any error can pass, as for flow runs.
            budget = self.error_budget if error.retryable or self._seen else 0.0
        if self.monotonic() - last_valid >= budget:
            raise error
        self._log_once(batch_id, f"not readable; continuing to wait: {error.message}")

    def _log_once(self, subject: str, text: str) -> None:
        if self._logged.get(subject) != text:
            self._logged[subject] = text
            log.info("Batches: %s is %s", subject, text)
