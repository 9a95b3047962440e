# SPDX-License-Identifier: Apache-2.0
"""Protocol of a ledger's store, and a store in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import TYPE_CHECKING, Protocol

from airflow_flowservice.exceptions import LedgerConflictError

if TYPE_CHECKING:
    from airflow_flowservice.ledger.entry import DataflowKey, LedgerEntry
    from airflow_flowservice.windows.window import IngestionWindow

    Key = tuple[DataflowKey, IngestionWindow]


class Ledger(Protocol):
    """Store of ledger entries, unique by dataflow and window.

    Each method raises `LedgerUnavailableError` if the store cannot be reached.
    """

    def get(self, dataflow: DataflowKey, window: IngestionWindow, /) -> LedgerEntry | None:
        """Return the entry of exactly this window, or None."""

    def overlapping(self, dataflows: Sequence[DataflowKey], window: IngestionWindow, /) -> list[LedgerEntry]:
        """Return the entries whose windows overlap the window, sorted by window; the entry of exactly it included."""

    def put(self, entry: LedgerEntry, /) -> LedgerEntry:
        """Store the entry if the stored one has the same version, and return it with the next version.

        An entry with version 0 is stored only if there is none.

        :raises LedgerConflictError: another process changed, added or removed the entry.
        """

    def remove(self, entry: LedgerEntry, /) -> None:
        """Remove the entry if the stored one has the same version.

        :raises LedgerConflictError: another process changed the entry.
        """

    def entries(
        self, dataflows: Iterable[DataflowKey] | None = None, within: IngestionWindow | None = None
    ) -> Iterator[LedgerEntry]:
        """Yield all entries, or those of the dataflows that overlap `within`, sorted by dataflow and window."""


@dataclass
class MemoryLedger:
    """Ledger in memory, for tests and for one process."""

    _stored: dict[Key, LedgerEntry] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock, repr=False)

    def get(self, dataflow: DataflowKey, window: IngestionWindow, /) -> LedgerEntry | None:
        """Return the entry of exactly this window, or None."""
        return self._stored.get((dataflow, window))

    def overlapping(self, dataflows: Sequence[DataflowKey], window: IngestionWindow, /) -> list[LedgerEntry]:
        """Return the entries whose windows overlap the window, sorted by window."""
        return sorted(self.entries(dataflows, within=window), key=lambda entry: entry.window)

    def put(self, entry: LedgerEntry, /) -> LedgerEntry:
        """Store the entry if the stored one has the same version, and return it with the next version."""
        with self._lock:
            self._require_version(entry)
            self._stored[entry.key] = replace(entry, version=entry.version + 1)
            return self._stored[entry.key]

    def remove(self, entry: LedgerEntry, /) -> None:
        """Remove the entry if the stored one has the same version."""
        with self._lock:
            self._require_version(entry)
            self._stored.pop(entry.key, None)

    def entries(
        self, dataflows: Iterable[DataflowKey] | None = None, within: IngestionWindow | None = None
    ) -> Iterator[LedgerEntry]:
        """Yield all entries, or those of the dataflows that overlap `within`, sorted by dataflow and window."""
        wanted = None if dataflows is None else set(dataflows)
        for dataflow, window in sorted(self._stored):
            is_wanted = wanted is None or dataflow in wanted
            if is_wanted and (within is None or window.overlaps(within)):
                yield self._stored[dataflow, window]

    def _require_version(self, entry: LedgerEntry) -> None:
        stored = self._stored.get(entry.key)
        if (stored.version if stored else 0) != entry.version:
            raise LedgerConflictError("another process changed this window's entry in the ledger")
