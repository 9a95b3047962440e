# SPDX-License-Identifier: Apache-2.0
"""Wait for the batches of a flow run: when the wait ends, with a fake clock and a catalogue in memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest

from airflow_flowservice.api.catalog import BatchError, BatchStatus, CatalogBatch
from airflow_flowservice.api.models import FlowRun, FlowRunStatus
from airflow_flowservice.coverage.cover import KnownRun, known_runs
from airflow_flowservice.exceptions import (
    AccessDeniedError,
    BatchNotFoundError,
    FlowRunBatchFailedError,
    FlowRunIncompleteError,
    FlowRunTimeoutError,
    FlowServiceError,
    ServerError,
)
from airflow_flowservice.runs import polling
from airflow_flowservice.runs.batch_reader import CATALOG_BATCHES
from airflow_flowservice.runs.batch_watch import NOT_YET_LISTED, CatalogReader, has_failed_batches
from airflow_flowservice.runs.polling import Poller, wait_together
from airflow_flowservice.runs.summary import FlowRunSummary
from airflow_flowservice.runs.watch import RunWatch, wait_for_end

ONE, TWO = "01JZ7Q5N2E8C4T6V9W3X5Y7Z2A", "01JZ7Q5N2E8C4T6V9W3X5Y7Z2B"


def succeeded(*batch_ids: str, **fields: Any) -> FlowRun:
    return FlowRun(
        **{"id": "run", "status": FlowRunStatus.SUCCESS, "status_word": "success", "batch_ids": batch_ids, **fields}
    )


@dataclass
class Catalog:
    """Catalogue in memory. Each batch has its words in order, and keeps the last one."""

    words: dict[str, list[str]] = field(default_factory=dict)
    error: FlowServiceError | None = None
    requests: list[list[str]] = field(default_factory=list)

    def list_batches(self, ids: Iterable[str], *, within_s: float) -> list[CatalogBatch]:
        self.requests.append(sorted(ids))
        if self.error:
            raise self.error
        known = [each for each in self.requests[-1] if each in self.words]
        if not known:
            raise BatchNotFoundError("there is no such batch", http_status=404)
        return [self._next(each) for each in known]

    def _next(self, batch_id: str) -> CatalogBatch:
        words = self.words[batch_id]
        word = words.pop(0) if len(words) > 1 else words[0]
        return CatalogBatch(id=batch_id, status=BatchStatus.parse(word), status_word=word)

    @property
    def read(self) -> Any:
        return CatalogReader(self.list_batches).read


@pytest.fixture
def watch_of(clock: Any) -> Callable[..., RunWatch]:
    """Return a function that creates watches with the fake clock."""

    def make(**fields: Any) -> RunWatch:
        times = {"monotonic": clock.monotonic, "wall": lambda: clock.now().timestamp()}
        return RunWatch(**{"flow_run_id": "run", "wait_for_batch": True, **times, **fields})

    return make


def waited(watch: RunWatch, run: FlowRun, catalog: Catalog, clock: Any) -> FlowRun:
    return wait_for_end(watch, lambda _, **limit: run, catalog.read, sleep=clock.sleep)


@pytest.mark.parametrize("words", [["success"], ["loading", "staging", "retrying", "stalled", "molten", "active"]])
def test_a_success_counts_when_the_batch_has_succeeded(words: list[str], watch_of: Any, clock: Any) -> None:
    """Each other word, also an unknown one, is waited for. The run itself is read only one time."""
    reads: list[str] = []
    catalog = Catalog({ONE: list(words)})

    def read(flow_run_id: str, **limit: Any) -> FlowRun:
        reads.append(flow_run_id)
        return succeeded(ONE)

    run = wait_for_end(watch_of(), read, catalog.read, sleep=clock.sleep)
    assert [words[-1]] == [batch.status_word for batch in run.batches]
    assert (["run"], [[ONE]] * len(words)) == (reads, catalog.requests)


def test_only_batches_that_have_not_ended_are_read_again(watch_of: Any, clock: Any) -> None:
    catalog = Catalog({ONE: ["success"], TWO: ["staging", "success"]})
    assert 2 == len(waited(watch_of(), succeeded(ONE, TWO), catalog, clock).batches)
    assert [[ONE, TWO], [TWO]] == catalog.requests


@pytest.mark.parametrize("run", [succeeded(output_records=0), succeeded(input_records=0)])
def test_a_run_without_records_has_no_batch(run: FlowRun, watch_of: Any, clock: Any) -> None:
    assert run == waited(watch_of(), run, Catalog(), clock)


def test_a_failed_run_ends_at_once(watch_of: Any, clock: Any) -> None:
    run = succeeded(ONE, status=FlowRunStatus.FAILED, status_word="failed")
    assert run == waited(watch_of(), run, Catalog(), clock)


def test_without_wait_for_batch_the_catalogue_is_not_read(watch_of: Any, clock: Any) -> None:
    catalog = Catalog()
    assert () == waited(watch_of(wait_for_batch=False), succeeded(ONE), catalog, clock).batches
    assert [] == catalog.requests


@pytest.mark.parametrize("run", [succeeded(output_records=9), succeeded(), succeeded(ONE)])
def test_a_batch_that_does_not_show_is_an_error_after_minutes(run: FlowRun, watch_of: Any, clock: Any) -> None:
    """The run shows no batch, or the catalogue does not have it. The error names the flow run."""
    began = clock.monotonic()
    with pytest.raises(BatchNotFoundError) as caught:
        waited(watch_of(), run, Catalog(), clock)
    assert NOT_YET_LISTED <= clock.monotonic() - began < NOT_YET_LISTED + 60
    assert ("run", False) == (caught.value.flow_run_id, caught.value.retryable)


def test_an_invalid_batch_id_is_never_requested(watch_of: Any, clock: Any) -> None:
    catalog = Catalog()
    with pytest.raises(BatchNotFoundError, match="cannot be requested"):
        waited(watch_of(), succeeded("../x"), catalog, clock)
    assert [] == catalog.requests


@pytest.mark.parametrize("error", [ServerError("down", http_status=503), AccessDeniedError("no", http_status=403)])
def test_errors_before_the_first_success(error: FlowServiceError, watch_of: Any, clock: Any) -> None:
    """An error that can pass has the error budget; any other error ends the wait at once."""
    began = clock.monotonic()
    with pytest.raises(type(error)):
        waited(watch_of(error_budget=100.0), succeeded(ONE), Catalog({ONE: ["success"]}, error=error), clock)
    assert (100 <= clock.monotonic() - began < 200) is error.retryable


def test_the_time_limit_covers_the_batches(watch_of: Any, clock: Any) -> None:
    with pytest.raises(FlowRunTimeoutError) as caught:
        waited(watch_of(timeout=60.0), succeeded(ONE), Catalog({ONE: ["stalled"]}), clock)
    assert (
        "the flow run succeeded, and its batches have not ended within wait_timeout, 60 seconds: "
        f"batch {ONE} is stalled"
    ) == caught.value.message


def test_the_error_budget_continues_in_the_next_process(watch_of: Any, clock: Any) -> None:
    """In reschedule mode each poll is a process, and the run itself can be read each time."""
    catalog = Catalog({ONE: ["success"]}, error=ServerError("down", http_status=503))
    stored: Any = None
    for _ in range(4):
        watch = watch_of(error_budget=100.0)
        watch.restore(stored)
        assert watch.poll(lambda _, **limit: succeeded(ONE), catalog.read) is None
        stored = json.loads(json.dumps(watch.to_json()))
        clock.sleep(30)
    watch = watch_of(error_budget=100.0)
    watch.restore(stored)
    with pytest.raises(ServerError):
        watch.poll(lambda _, **limit: succeeded(ONE), catalog.read)


@pytest.mark.parametrize("stored", [{"batches": 1}, {"batches": {"seen": True}}, {"batches": {"good": "x"}}])
def test_state_of_another_version_is_ignored(stored: Any, watch_of: Any) -> None:
    watch = watch_of()
    watch.restore({"id": "run", "seen": True, "said": None, "good": 0.0, **stored})
    assert watch.poll(lambda _, **limit: succeeded(ONE), Catalog({ONE: ["success"]}).read)


def test_waiters_share_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred tasks on one connection read their batches with few requests."""
    monkeypatch.setattr("airflow_flowservice.runs.watch._MIN_DELAY_S", 0.05)
    ids = [f"01JZ7Q5N2E8C4T6V9W3X5Y{number:04}" for number in range(100)]
    runs = {f"run-{batch_id}": succeeded(batch_id, id=f"run-{batch_id}") for batch_id in ids}
    catalog = Catalog({each: ["staging", "success"] for each in ids})

    class Service:
        get_run = staticmethod(runs.__getitem__)

        def list_runs(self, *, ids: Iterable[str], **_: Any) -> list[FlowRun]:
            return [runs[each] for each in ids]

    async def connect(service: Any) -> Any:
        return service

    async def wait() -> list[FlowRun]:
        run_poller: Poller[FlowRun] = Poller(lambda: connect(Service()))
        batch_poller: Poller[CatalogBatch] = Poller(
            lambda: connect(CatalogReader(catalog.list_batches)), kind=CATALOG_BATCHES
        )
        watches = [RunWatch(flow_run_id=each, poll_interval=0.2, wait_for_batch=True) for each in runs]
        return await asyncio.gather(*(wait_together(watch, run_poller, batch_poller) for watch in watches))

    monkeypatch.setattr(polling, "_BATCH_DELAY_S", 0.01)
    assert {"success"} == {batch.status_word for run in asyncio.run(wait()) for batch in run.batches}
    assert len(catalog.requests) < 40


def with_batches(*words: str) -> FlowRun:
    batches = tuple(
        CatalogBatch(
            id=f"{ONE[:-1]}{number}",
            status=BatchStatus.parse(word),
            status_word=word,
            errors=(BatchError(code="INGEST-1", message="bad", records=number + 1),),
            threshold_percent=5,
        )
        for number, word in enumerate(words)
    )
    return succeeded(*(batch.id for batch in batches), batches=batches)


@pytest.mark.parametrize(
    ("words", "status", "error"),
    [
        (("success", "active"), "success", None),
        (("failed",), "failed", FlowRunBatchFailedError),
        (("aborted", "failed"), "failed", FlowRunBatchFailedError),
        (("success", "failed"), "partial_success", FlowRunIncompleteError),
    ],
)
def test_summary_of_the_batches(words: Any, status: str, error: type[FlowServiceError] | None) -> None:
    """If all batches failed, a retry creates a new run. If some succeeded, it would duplicate their records."""
    summary = FlowRunSummary.of(with_batches(*words))
    assert status == summary.status
    again = FlowRunSummary.from_json(json.loads(json.dumps(summary.to_json())))
    assert summary == again
    if error is None:
        summary.require_success()
        return
    with pytest.raises(error, match=r"INGEST-1: bad \(") as caught:
        summary.require_success()
    assert (error is FlowRunBatchFailedError, "INGEST-1") == (caught.value.retryable, caught.value.code)


def test_coverage_keeps_the_verdict_of_the_batches() -> None:
    """Flow Service still reports the run as a success."""
    run = with_batches("failed")
    [known] = known_runs([FlowRunSummary.of(run)], [succeeded(ONE)])
    assert isinstance(known, KnownRun)
    assert (FlowRunStatus.FAILED, "failed", False) == (known.status, known.batch, known.outside)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({ONE: ["failed"], TWO: ["failed"]}, True),
        ({ONE: ["failed"], TWO: ["success"]}, False),
        ({ONE: ["failed"], TWO: ["staging"]}, False),
        ({ONE: ["failed"]}, False),
        ({}, False),
    ],
)
def test_nothing_is_ingested_only_if_all_batches_failed(words: Any, expected: bool) -> None:
    """If a batch cannot be read, the run counts as a success, so that no second run is created."""
    assert expected is has_failed_batches(succeeded(ONE, TWO), Catalog(words).read)


def test_an_unclear_end_does_not_read_batches(watch_of: Any, clock: Any) -> None:
    """A run that ended without a status has neither succeeded nor failed, so its batches decide nothing."""
    unclear = succeeded(ONE, status=FlowRunStatus.ENDED_UNCLEAR)
    catalog = Catalog({ONE: ["failed"]})
    assert not has_failed_batches(unclear, catalog.read)
    assert waited(watch_of(), unclear, catalog, clock).batches == ()
    assert catalog.requests == []
