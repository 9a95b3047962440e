# SPDX-License-Identifier: Apache-2.0
"""The ledger's Variables in Airflow's metadata database, for the command line and the page."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_flowservice._airflow.database import FETCH_SIZE
from airflow_flowservice._airflow.variable_ledger import (
    LEDGER_PREFIX,
    compact,
    ledger_key,
    parse_entry,
    stored_texts,
    window_of_key,
)
from airflow_flowservice.exceptions import LedgerConflictError, LedgerUnavailableError

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from airflow_flowservice.ledger.entry import DataflowKey, LedgerEntry
    from airflow_flowservice.windows.window import IngestionWindow

log = logging.getLogger(__name__)

# Conditions of one query; with more dataflows, all rows are read.
_MAX_CONDITIONS = 50
# Values in one query; SQLite before 3.32 takes at most 999 parameters.
_KEYS_AT_ONCE = 900
# The end of the JSON of `variable_ledger.stored_texts`. Quotes inside a JSON string are escaped.
_UPDATED_AT = re.compile(r'"updated_at": ([0-9]+\.?[0-9]*), "version": [0-9]+(?:, "written_by": "[^"]*")?\}\Z')
_TAIL = 160
_DIGEST = slice(len(LEDGER_PREFIX), len(LEDGER_PREFIX) + 16)
_START, _END = slice(_DIGEST.stop + 1, _DIGEST.stop + 17), slice(_DIGEST.stop + 18, _DIGEST.stop + 34)


class LedgerRow(NamedTuple):
    """Variable of a window, not parsed yet. Rows have the order of dataflow digests, then windows.

    :param text: the entry as JSON; None if it cannot be decrypted.
    """

    key: str
    text: str | None

    @property
    def digest(self) -> str:
        """Return `DataflowKey.digest`."""
        return self.key[_DIGEST]

    @property
    def window(self) -> IngestionWindow | None:
        """Return the window; None if a user created a Variable with such a key."""
        return window_of_key(self.key)

    @property
    def is_object(self) -> bool:
        """Return whether the text looks like a JSON object."""
        return self.text is not None and self.text[:1] == "{" and self.text[-1:] == "}"

    @property
    def entry(self) -> LedgerEntry | None:
        """Parse the entry; return None if it is none."""
        return parse_entry(self.text)

    @property
    def updated_at(self) -> float | None:
        """Return `LedgerEntry.updated_at`, mostly without parsing the entry; None if the row is no entry."""
        found = _UPDATED_AT.search(self.text or "", max(0, len(self.text or "") - _TAIL))
        if found:
            return float(found[1])
        entry = self.entry
        return entry.updated_at if entry else None

    def overlaps(self, edges: tuple[str, str]) -> bool:
        """Return whether the window overlaps a range of `compact` instants."""
        return self.key[_START] < edges[1] and edges[0] < self.key[_END]


@dataclass(frozen=True)
class MetadataLedger:
    """Read-only view of all entries that `VariableLedger` stored, on every version of Airflow.

    One query reads the keys and descriptions. Descriptions are not encrypted. If a description is no entry, for
    instance since a user changed it or imported the Variables, the value is read and decrypted.
    """

    session: Session

    def entries(
        self, dataflows: Iterable[DataflowKey] | None = None, within: IngestionWindow | None = None
    ) -> Iterator[LedgerEntry]:
        """Yield all entries, or those of the dataflows that overlap `within`, sorted by dataflow and window.

        An entry that cannot be read or decrypted is omitted, and a warning names its Variable.
        """
        by_dataflow: dict[DataflowKey, list[LedgerEntry]] = {}
        for row in self.rows(dataflows, within):
            if entry := self.entry_of(row):
                by_dataflow.setdefault(entry.dataflow, []).append(entry)
        for dataflow in sorted(by_dataflow):
            yield from by_dataflow[dataflow]

    def rows(
        self,
        dataflows: Iterable[DataflowKey] | None = None,
        within: IngestionWindow | None = None,
        *,
        containing: str | None = None,
    ) -> list[LedgerRow]:
        """Return the rows of the entries without parsing them: for many dataflows, this is several times as fast.

        :param containing: part of the JSON of the wanted entries. The database omits most of the other rows, but not
            those whose description is no JSON object.
        """
        digests = None if dataflows is None else {dataflow.digest for dataflow in dataflows}
        rows = list(map(LedgerRow._make, self.session.execute(_query(digests, containing=containing))))
        if digests is not None:
            rows = [row for row in rows if row.key[_DIGEST] in digests]
        if within is not None:
            edges = compact(within.start), compact(within.end)
            rows = [row for row in rows if row.overlaps(edges)]
        decrypted = self._decrypted_rows([row.key for row in rows if not row.is_object])
        # Not by the database: the order of its collation may be another one.
        return sorted(decrypted.get(row.key, row) for row in rows)

    def stream(self) -> Iterator[tuple[str, str | None]]:
        """Return keys and descriptions without parsing or sorting them, in little memory.

        The database sends them in parts, so do not use the session before the end.
        """
        # Not by the session, whose loading of objects takes as long as the database.
        rows: Any = self.session.connection().execute(_query(None).execution_options(yield_per=FETCH_SIZE))
        return chain.from_iterable(rows.partitions())

    def read_again(self, key: str, text: str | None) -> LedgerRow:
        """Return a row of `stream`, decrypted if its description is no entry."""
        row = LedgerRow(key, text)
        return row if row.is_object else self._decrypted(key)

    def entry_of(self, row: LedgerRow) -> LedgerEntry | None:
        """Return the entry of a row, or None with a warning if it cannot be read or decrypted."""
        entry = row.entry or self._decrypted(row.key).entry
        if entry is None:
            log.warning("The Variable %s is not the ledger's entry of a window, or cannot be decrypted", row.key)
        return entry

    def _decrypted(self, key: str) -> LedgerRow:
        return self._decrypted_rows([key])[key]

    def _decrypted_rows(self, keys: Sequence[str]) -> dict[str, LedgerRow]:
        from sqlalchemy import select

        found = {key: LedgerRow(key, None) for key in keys}
        for begin in range(0, len(keys), _KEYS_AT_ONCE):
            query = select(_variable()).where(_variable().key.in_(keys[begin : begin + _KEYS_AT_ONCE]))
            found |= {each.key: LedgerRow(each.key, each.get_val()) for each in self.session.scalars(query)}
        return found


class StoredLedger(MetadataLedger):
    """Ledger in Airflow's Variables for the command line. Implements the protocol `ledger.store.Ledger`.

    Each change is one transaction, which is committed. A change compares the stored text in its condition, so a
    change by a task at the same time is detected.
    """

    def get(self, dataflow: DataflowKey, window: IngestionWindow, /) -> LedgerEntry | None:
        """Return the entry of exactly this window, or None.

        :raises LedgerUnavailableError: the Variable is no entry, or cannot be decrypted.
        """
        stored = self._stored(ledger_key(dataflow, window))
        return stored[1] if stored else None

    def overlapping(self, dataflows: Sequence[DataflowKey], window: IngestionWindow, /) -> list[LedgerEntry]:
        """Return the entries whose windows overlap the window, sorted by window."""
        return sorted(self.entries(dataflows, within=window), key=lambda entry: entry.window)

    def put(self, entry: LedgerEntry, /) -> LedgerEntry:
        """Store the entry if the stored one has the same version, and return it with the next version.

        :raises LedgerConflictError: another process changed, added or removed the entry.
        """
        from sqlalchemy import update
        from sqlalchemy.exc import IntegrityError

        key, variable = ledger_key(*entry.key), _variable()
        old = self._require_version(key, entry)
        result = replace(entry, version=entry.version + 1)
        text, description = stored_texts(result)
        made = variable(key=key, val=text, description=description)
        if old is not None:
            change = update(variable).where(variable.key == key, variable._val == old)
            values = {variable._val: made._val, variable.is_encrypted: made.is_encrypted}
            self._change_one(key, change.values({**values, variable.description: description}))
            return result
        try:
            self.session.add(made)
            self.session.commit()
        except IntegrityError:
            self.session.rollback()
            raise _conflict(key) from None
        return result

    def remove(self, entry: LedgerEntry, /) -> None:
        """Remove the entry if the stored one has the same version.

        :raises LedgerConflictError: another process changed the entry.
        """
        from sqlalchemy import delete

        key, variable = ledger_key(*entry.key), _variable()
        old = self._require_version(key, entry)
        if old is not None:
            self._change_one(key, delete(variable).where(variable.key == key, variable._val == old))

    def _require_version(self, key: str, entry: LedgerEntry) -> str | None:
        """Return the stored, encrypted text, or None if there is none.

        :raises LedgerConflictError: the stored entry has another version.
        """
        stored = self._stored(key)
        if (stored[1].version if stored else 0) != entry.version:
            raise _conflict(key)
        return stored[0] if stored else None

    def _stored(self, key: str) -> tuple[str, LedgerEntry] | None:
        """Return the encrypted text and the entry of a Variable."""
        from sqlalchemy import select

        # Without `populate_existing`, a session returns the row that it has read before.
        query = select(_variable()).where(_variable().key == key).execution_options(populate_existing=True)
        variable = self.session.scalar(query)
        if variable is None:
            return None
        entry = parse_entry(variable.get_val())
        if entry is None:
            raise LedgerUnavailableError(
                f"the Variable {key} is not the ledger's entry of a window, or cannot be decrypted",
                remedy="if a user changed it, correct it; and check [core] fernet_key",
            )
        return variable._val, entry

    def _change_one(self, key: str, statement: Any) -> None:
        changed = self.session.execute(statement, execution_options={"synchronize_session": False})
        self.session.commit()
        if getattr(changed, "rowcount", 0) != 1:
            raise _conflict(key)


def _conflict(key: str) -> LedgerConflictError:
    return LedgerConflictError(f"another process changed the ledger's entry of this window at the same time ({key})")


def _query(digests: set[str] | None, *, containing: str | None = None) -> Any:
    from sqlalchemy import not_, or_, select

    variable = _variable()
    prefixes = [LEDGER_PREFIX]
    if digests is not None and len(digests) <= _MAX_CONDITIONS:
        prefixes = [f"{LEDGER_PREFIX}{digest}." for digest in sorted(digests)]
    query = select(variable.key, variable.description)
    query = query.where(or_(False, *(variable.key.startswith(prefix, autoescape=True) for prefix in prefixes)))
    if containing is None:
        return query
    text = variable.description
    return query.where(or_(text.is_(None), not_(text.like("{%}")), text.contains(containing, autoescape=True)))


def _variable() -> Any:
    from airflow.models.variable import Variable

    return Variable
