# SPDX-License-Identifier: Apache-2.0
"""Flow runs that exist, and that Flow Service omits from lists by id."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest

from airflow_flowservice.api.models import FlowRun, FlowRunStatus
from airflow_flowservice.exceptions import RunNotFoundError
from airflow_flowservice.runs import batch_reader
from airflow_flowservice.runs.batch_reader import BatchReader

OTHERS = [f"00000000-0000-4000-8000-{number:012}" for number in range(60)]
HIDDEN = [f"ffffffff-0000-4000-8000-{number:012}" for number in range(3)]


@dataclass
class Service:
    """In-memory Flow Service whose lists omit some flow runs.

    :param is_hidden: whether a list omits a flow run.
    """

    is_hidden: Callable[[str], bool] = HIDDEN.__contains__
    lists: list[list[str]] = field(default_factory=list)
    reads: list[str] = field(default_factory=list)

    def list_runs(self, *, ids: Iterable[str], **_: Any) -> list[FlowRun]:
        self.lists.append(list(ids))
        return [_run(each) for each in ids if not self.is_hidden(each)]

    def get_run(self, flow_run_id: str, **_: Any) -> FlowRun:
        self.reads.append(flow_run_id)
        if flow_run_id == "gone":
            raise RunNotFoundError("unknown", http_status=404)
        return _run(flow_run_id)


def _run(flow_run_id: str) -> FlowRun:
    return FlowRun(id=flow_run_id, status=FlowRunStatus.IN_PROGRESS, status_word="inProgress")


@pytest.mark.parametrize("hidden", [1, 3])
def test_hidden_runs_are_read_separately(hidden, caplog):
    """The other flow runs remain in one list, also after the minutes for which a hidden one is read separately."""
    clock = [0.0]
    service = Service()
    reader = BatchReader(service, monotonic=lambda: clock[0])
    wanted = dict.fromkeys([*OTHERS, *HIDDEN[:hidden]], True)
    for _ in range(60):
        results = reader.read(wanted)
        assert set(wanted) == {run.id for run in results.values() if isinstance(run, FlowRun)}
        clock[0] += 30
    assert reader.together
    assert (60, set(HIDDEN[:hidden])) == (len(service.lists), set(service.reads))
    assert f"Flow Service omits flow run {HIDDEN[0]} from lists; reading it separately" in caplog.text


def test_hidden_run_in_a_list_of_its_own_does_not_separate_others():
    """The requests of a poller contain different flow runs, so a list may have only the hidden one."""
    service = Service()
    reader = BatchReader(service)
    for _ in range(10):
        reader.read(dict.fromkeys(OTHERS, True))
        reader.read({HIDDEN[0]: True})
    assert reader.together
    assert set(HIDDEN[:1]) == set(service.reads)


@pytest.mark.parametrize(
    "is_hidden", [lambda _: True, lambda each: int(each[-1]) % 2 == 0, lambda each: int(each[-2:]) >= 45]
)
def test_lists_that_omit_many_runs_are_replaced(is_hidden, caplog):
    """All flow runs are then read singly, since the lists do not follow their filter."""
    service = Service(is_hidden=is_hidden)
    reader = BatchReader(service)
    for _ in range(4):
        results = reader.read(dict.fromkeys(OTHERS, True))
    assert not reader.together
    assert set(OTHERS) == {run.id for run in results.values() if isinstance(run, FlowRun)}
    assert 1 == caplog.text.count("with a separate request")


def test_vanished_run_is_no_omission():
    """A single read confirms that the flow run does not exist."""
    service = Service(is_hidden=lambda each: each == "gone")
    reader = BatchReader(service)
    for _ in range(10):
        results = reader.read(dict.fromkeys([*OTHERS, "gone"], True))
        assert RunNotFoundError is type(results["gone"])
    assert (True, {}) == (reader.together, reader._separate_until)


def test_records_of_omissions_are_bounded(monkeypatch):
    """A triggerer may poll flow runs for months."""
    monkeypatch.setattr(batch_reader, "_MAX_COUNTED", 100)
    reader = BatchReader(Service())
    for number in range(20):
        reader.read({f"{number}-{each}": True for each in OTHERS})
    assert len(reader._shown) <= 160


def test_hidden_runs_of_the_past_do_not_count():
    """Only hidden flow runs of the last minutes decide whether lists are used."""
    clock = [0.0]
    reader = BatchReader(Service(is_hidden=lambda each: each.startswith("hidden")), monotonic=lambda: clock[0])
    for number in range(40):
        for _ in range(4):
            reader.read(dict.fromkeys([*OTHERS, f"hidden-{number}"], True))
        clock[0] += 400
    assert reader.together
