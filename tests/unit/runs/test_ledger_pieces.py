# SPDX-License-Identifier: Apache-2.0
"""Pieces of a window that a task orders with `on_overlap="rest"`: in random histories, each hour is ingested once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from creations import FAILED, SUCCESS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_flowservice.api.models import FlowRunStatus
from airflow_flowservice.exceptions import FlowRunActiveError, FlowServiceError, NoAnswerError, WindowOverlapError
from airflow_flowservice.ledger.entry import DataflowKey, EntryState, LedgerEntry
from airflow_flowservice.ledger.store import MemoryLedger
from airflow_flowservice.runs.create_once import CreateOnce
from airflow_flowservice.runs.intent import Attempt
from airflow_flowservice.runs.ledger_intents import LedgerPolicy, deliver
from airflow_flowservice.windows.window import IngestionWindow

HOURS = 8
MIDNIGHT = datetime(2026, 1, 1, tzinfo=timezone.utc)
DATAFLOW = DataflowKey("org", "prod", "flow")
OWN, OTHER = "dag/rest/task/-1", "dag/other/task/-1"


def hours(start: int, end: int) -> IngestionWindow:
    return IngestionWindow(MIDNIGHT + timedelta(hours=start), MIDNIGHT + timedelta(hours=end))


class Rest:
    """Task that ingests the rest of `HOURS` hours, and other tasks."""

    def __init__(self, world: Any) -> None:
        self.world, self.ledger = world, MemoryLedger()

    def creation(self, owner: str = OWN, *, number: int = 1, clears: int = 0, **options: Any) -> CreateOnce:
        options = {"on_overlap": "rest", **options}
        policy = {name: options.pop(name) for name in ("on_overlap", "restate") if name in options}
        return CreateOnce(
            service=self.world.service,
            store=None,
            attempt=Attempt(try_number=number, max_tries=2 + clears, retries=2),
            ledger=LedgerPolicy(ledger=self.ledger, dataflow=DATAFLOW, owner=owner, **policy),
            now=self.world.time.now,
            monotonic=self.world.time.monotonic,
            sleep=self.world.time.sleep,
            **options,
        )

    def status(self, flow_run_id: str) -> FlowRunStatus:
        return next(run.status for run in self.world.service.runs if run.id == flow_run_id)

    def pieces(self, **options: Any) -> list[tuple[int, int]]:
        pieces = self.creation(**options).pieces(self.world.order(window=hours(0, HOURS)))
        return [
            (int((each.start - MIDNIGHT).total_seconds()) // 3600, int((each.end - MIDNIGHT).total_seconds()) // 3600)
            for each in pieces
        ]

    def ingest(self, window: IngestionWindow, status: FlowRunStatus = SUCCESS, **options: Any) -> str:
        """Create the flow run of a window; end it, and record a success."""
        owner = options.get("owner", OWN)
        outcome = self.creation(**options)(self.world.order(window=window))
        if not self.status(outcome.flow_run_id).ended:
            self.world.service.end(outcome.flow_run_id, status)
        self.record(window, outcome.flow_run_id, owner=None if owner == OWN else owner)
        return str(outcome.flow_run_id)

    def record(self, window: IngestionWindow, flow_run_id: str, *, owner: str | None) -> None:
        if self.status(flow_run_id).succeeded:
            deliver(self.ledger, dataflow=DATAFLOW, window=window, flow_run_id=flow_run_id, owner=owner)

    def attempt(self, *, statuses: list[FlowRunStatus], **options: Any) -> bool:
        """Perform an attempt as the operator does. Return whether it succeeded."""
        done: dict[IngestionWindow, str] = {}
        while left := [each for each in self._windows(**options) if each not in done]:
            done[left[0]] = self.ingest(left[0], statuses.pop() if statuses else SUCCESS, **options)
            if not self.status(done[left[0]]).succeeded:
                return False
        for window, flow_run_id in done.items():
            self.record(window, flow_run_id, owner=OWN)
        return True

    def _windows(self, **options: Any) -> list[IngestionWindow]:
        return [hours(*each) for each in self.pieces(**options)]

    def ingested(self) -> Counter[int]:
        """Return how often each hour is ingested."""
        found: Counter[int] = Counter()
        for run in self.world.service.runs:
            if run.status.succeeded:
                begin = int((run.window.start - MIDNIGHT).total_seconds()) // 3600
                found.update(range(begin, begin + run.window.seconds // 3600))
        return found


@pytest.fixture
def make_rest(make_world: Any) -> Callable[[], Rest]:
    return lambda: Rest(make_world(store=None))


@pytest.fixture
def rest(make_rest: Any) -> Rest:
    return make_rest()


class TestPieces:
    def test_a_window_without_parts_is_one_piece(self, rest: Rest) -> None:
        assert [(0, 8)] == rest.pieces()

    @pytest.mark.parametrize(
        ("parts", "pieces"),
        [
            ([(0, 2)], [(2, 8)]),
            ([(-1, 2)], [(2, 8)]),
            ([(3, 5)], [(0, 3), (5, 8)]),
            ([(1, 2), (2, 3), (6, 9)], [(0, 1), (3, 6)]),
            ([(0, 4), (4, 8)], [(0, 8)]),
            ([(0, 8)], [(0, 8)]),
        ],
        ids=["start", "longer", "middle", "several", "all", "exactly"],
    )
    def test_ingested_parts_are_omitted(self, rest: Rest, parts: Any, pieces: Any) -> None:
        """If nothing remains, the whole window is ordered, to which `on_ingested` applies."""
        for part in parts:
            rest.ingest(hours(*part), owner=OTHER)
        assert pieces == rest.pieces()

    def test_a_failed_part_is_not_omitted(self, rest: Rest) -> None:
        rest.ingest(hours(0, 4), FAILED, owner=OTHER)
        rest.ingest(hours(6, 8), owner=OTHER)
        assert [(0, 6)] == rest.pieces()

    def test_an_active_part_is_awaited(self, rest: Rest) -> None:
        """A retry follows."""
        rest.creation(OTHER)(rest.world.order(window=hours(0, 4)))
        with pytest.raises(FlowRunActiveError) as error:
            rest.pieces()
        assert error.value.retryable

    def test_a_part_with_an_unknown_result_is_an_error(self, rest: Rest) -> None:
        """The rest is not known."""
        rest.ingest(hours(0, 4), FlowRunStatus.ENDED_UNCLEAR, owner=OTHER)
        with pytest.raises(WindowOverlapError, match="result unknown"):
            rest.pieces()

    @pytest.mark.parametrize("options", [{"restate": True}, {"adopt": "run-1"}], ids=["restate", "adopt"])
    def test_a_request_is_for_the_whole_window(self, rest: Rest, options: Any) -> None:
        rest.ingest(hours(0, 4), owner=OTHER)
        assert [(0, 8)] == rest.pieces(**options)

    def test_a_retry_keeps_its_pieces(self, rest: Rest) -> None:
        """Also those whose flow run failed, or whose claim has no flow run id yet."""
        rest.ingest(hours(3, 5), owner=OTHER)
        rest.ingest(hours(0, 3), FAILED)
        claim = LedgerEntry(dataflow=DATAFLOW, window=hours(5, 8), state=EntryState.CLAIMED, owner=OWN)
        rest.ledger.put(claim)
        assert [(0, 3), (5, 8)] == rest.pieces(number=2)

    def test_a_failed_window_is_divided_if_another_task_has_ingested_a_part(self, rest: Rest) -> None:
        """The first attempt ordered the whole window."""
        rest.ingest(hours(0, 8), FAILED)
        rest.ingest(hours(3, 5), owner=OTHER)
        assert [(0, 3), (5, 8)] == rest.pieces(number=2)

    def test_another_task_with_the_same_window_is_followed(self, rest: Rest) -> None:
        """Its active flow run is shared. If it failed, the rest is ordered."""
        rest.ingest(hours(3, 5), owner=OTHER)
        options = {"owner": "dag/third/task/-1", "on_overlap": "restate"}
        outcome = rest.creation(**options)(rest.world.order(window=hours(0, 8)))
        assert [(0, 8)] == rest.pieces()
        rest.world.service.end(outcome.flow_run_id, FAILED)
        assert [(0, 3), (5, 8)] == rest.pieces()


class TestAttempts:
    def test_a_clear_of_a_success_ingests_its_pieces_again(self, rest: Rest) -> None:
        """The parts of other tasks stay."""
        rest.ingest(hours(3, 5), owner=OTHER)
        assert rest.attempt(statuses=[])
        assert rest.attempt(statuses=[], number=2, clears=1)
        assert Counter({0: 2, 1: 2, 2: 2, 3: 1, 4: 1, 5: 2, 6: 2, 7: 2}) == rest.ingested()

    def test_a_clear_of_a_failure_ingests_only_the_failed_piece(self, rest: Rest) -> None:
        rest.ingest(hours(3, 5), owner=OTHER)
        assert not rest.attempt(statuses=[FAILED, SUCCESS])
        assert rest.attempt(statuses=[], number=2, clears=1)
        assert dict.fromkeys(range(HOURS), 1) == dict(rest.ingested())

    def test_a_repeated_dag_run_creates_nothing(self, rest: Rest) -> None:
        """Its history was deleted, so it has the first try again."""
        rest.ingest(hours(3, 5), owner=OTHER)
        assert rest.attempt(statuses=[])
        assert rest.attempt(statuses=[])
        assert 3 == len(rest.world.service.runs)


spans = st.tuples(st.integers(-2, HOURS + 1), st.integers(1, 4)).map(lambda span: (span[0], sum(span)))
statuses = st.sampled_from([SUCCESS, FAILED])
faults = st.sampled_from([None, None, ("lost", NoAnswerError("reset")), ("recorded", NoAnswerError("timeout"))])


@settings(derandomize=True, deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    attempts=st.lists(
        st.tuples(st.lists(st.tuples(spans, statuses), max_size=3), st.lists(statuses, max_size=3), faults), max_size=4
    )
)
def test_each_hour_is_ingested_once(make_rest: Any, attempts: list[Any]) -> None:
    """Between the attempts, other tasks ingest windows; flow runs fail, and responses are lost.

    Another task cannot ingest a window that overlaps an ingested one.
    """
    rest = make_rest()
    for number, (others, ends, fault) in enumerate([*attempts, ([], [], None)], start=1):
        for index, (span, status) in enumerate(others):
            try:
                rest.ingest(hours(*span), status, owner=f"dag/{number}-{index}/task/-1", on_overlap="fail")
            except FlowServiceError:
                continue
        rest.world.service.plan = [fault] if fault else []
        succeeded = rest.attempt(statuses=list(ends), number=number)
    assert succeeded
    found = rest.ingested()
    assert {1} == {found[hour] for hour in range(HOURS)}
    assert {1} >= set(found.values())
    assert 1 == len({tuple(rest.pieces(number=9)) for _ in range(2)})
