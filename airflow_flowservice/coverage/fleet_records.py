# SPDX-License-Identifier: Apache-2.0
"""Content of a ledger about one dataflow, in little memory: most entries are only a flow run and its window. Pure."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain
from operator import attrgetter
from typing import TYPE_CHECKING

from airflow_flowservice.coverage.ledger_runs import FIRST_S, LedgerRecords, recorded_time, restated_runs
from airflow_flowservice.ledger.entry import EntryState
from airflow_flowservice.runs.intent import name_in_intent
from airflow_flowservice.windows.window import IngestionWindow

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from airflow_flowservice.ledger.entry import LedgerEntry

_END = attrgetter("end")
LATER_END = attrgetter("end", "start")
"""Order by which a window is the last one; it does not depend on the order of the records."""


@dataclass
class NewestName:
    """Name of a dataflow: the one in the entry that changed last, of those that have a name.

    A task that reads its dataflow before it creates a flow run stores the name in the intent of its entry.
    """

    _newest: LedgerEntry | None = None

    def add(self, entry: LedgerEntry) -> None:
        """Add an entry."""
        if has_name(entry) and (self._newest is None or _rank(entry) > _rank(self._newest)):
            self._newest = entry

    @property
    def name(self) -> str | None:
        """Return the name; None if no entry has one."""
        return None if self._newest is None else name_in_intent(self._newest.intent)


def newest_name(entries: Iterable[LedgerEntry]) -> str | None:
    """Return the name of a dataflow by all its entries; None if they have none."""
    newest = NewestName()
    for entry in entries:
        newest.add(entry)
    return newest.name


def has_name(entry: LedgerEntry) -> bool:
    """Return whether an entry has the dataflow's name."""
    return isinstance(entry.intent, Mapping) and isinstance(entry.intent.get("flow_name"), str)


def _rank(entry: LedgerEntry) -> tuple[float, IngestionWindow]:
    return entry.updated_at, entry.window


@dataclass(kw_only=True)
class DataflowRecords:
    """Entries of one dataflow, collected one by one.

    :param since: earlier windows only count for `last`, `dag_ids` and `LedgerRecords.recorded`.
    :param ingested: window of each successful flow run that replaced none.
    :param others: all other entries.
    :param unreadable: windows with an entry that cannot be read.
    :param dag_ids: DAGs of the last claims, also before `since`.
    """

    since: datetime
    ingested: dict[str, IngestionWindow] = field(default_factory=dict)
    others: list[LedgerEntry] = field(default_factory=list)
    unreadable: list[IngestionWindow] = field(default_factory=list)
    dag_ids: set[str] = field(default_factory=set)
    _updates: array[float] = field(default_factory=lambda: array("d"))
    _windows: list[IngestionWindow] = field(default_factory=list)
    _seen: IngestionWindow | None = None
    _names: NewestName = field(default_factory=NewestName)

    def add(self, entry: LedgerEntry) -> None:
        """Add an entry."""
        self.add_name(entry)
        window, dag_id = entry.window, entry.owner.partition("/")[0]
        is_ingested = entry.state is EntryState.INGESTED and entry.flow_run_id is not None
        if is_ingested and entry.flow_run_id is not None and not (entry.earlier or restated_runs(entry)):
            self.add_ingested(entry.flow_run_id, window, dag_id=dag_id, updated_at=entry.updated_at)
            return
        if is_ingested or entry.earlier:
            self._see(window)
        self.dag_ids.add(dag_id)
        self._windows.append(window)
        self._updates.append(entry.updated_at)
        if window.end > self.since:
            self.others.append(entry)

    def add_ingested(self, flow_run_id: str, window: IngestionWindow, *, dag_id: str, updated_at: float) -> None:
        """Add an entry that is ingested and was never restated."""
        self.dag_ids.add(dag_id)
        self._windows.append(window)
        self._updates.append(updated_at)
        if window.end > self.since:
            self.ingested[flow_run_id] = window
        else:
            self._see(window)

    def add_recent(
        self, flow_run_ids: Sequence[str], windows: Sequence[IngestionWindow], *, updates: Sequence[float]
    ) -> None:
        """Add entries as `add_ingested`, all of which end after `since`; their DAGs must be in `dag_ids`.

        The values at the same position are those of one entry.
        """
        self.ingested.update(zip(flow_run_ids, windows, strict=True))
        self._windows.extend(windows)
        self._updates.extend(updates)

    def joined(self, earlier: Iterable[DataflowRecords]) -> DataflowRecords:
        """Return the records with those of earlier dataflows; DAGs and name stay those of this one."""
        every = [*earlier, self]
        return DataflowRecords(
            since=self.since,
            ingested={flow_run_id: window for each in every for flow_run_id, window in each.ingested.items()},
            others=[entry for each in every for entry in each.others],
            unreadable=[window for each in every for window in each.unreadable],
            dag_ids=self.dag_ids,
            _updates=array("d", chain.from_iterable(each._updates for each in every)),
            _windows=[window for each in every for window in each._windows],
            _seen=max(filter(None, (each._seen for each in every)), key=attrgetter("end"), default=None),
            _names=self._names,
        )

    def add_name(self, entry: LedgerEntry) -> None:
        """Add only the dataflow's name in an entry."""
        self._names.add(entry)

    @property
    def flow_name(self) -> str | None:
        """Return the dataflow's name; None if no entry has one."""
        return self._names.name

    def records(self) -> LedgerRecords:
        """Return the records without those in `ingested`."""
        return LedgerRecords(
            entries=tuple(self.others), unreadable=tuple(self.unreadable), known_recorded=self._recorded()
        )

    @property
    def last(self) -> IngestionWindow | None:
        """Return the last ingested window, also before `since`."""
        windows = [*filter(None, [self._seen]), *self.ingested.values()]
        end = max(map(_END, windows), default=None)
        return max((window for window in windows if window.end == end), key=LATER_END, default=None)

    def _see(self, window: IngestionWindow) -> None:
        if self._seen is None or LATER_END(window) > LATER_END(self._seen):
            self._seen = window

    def _recorded(self) -> IngestionWindow | None:
        """Return the value of `LedgerRecords.recorded` for all entries."""
        earliest = min(self._updates, default=0.0)
        if earliest <= 0:
            return recorded_time(zip(self._updates, self._windows, strict=True))
        first = earliest + FIRST_S
        start = min(
            window.start for window, update in zip(self._windows, self._updates, strict=True) if update <= first
        )
        return IngestionWindow(start, max(map(_END, self._windows)))
