# SPDX-License-Identifier: Apache-2.0
"""Ledger in Airflow itself: one Airflow Variable for each window of a dataflow."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from functools import lru_cache
from typing import TYPE_CHECKING
from uuid import uuid4

from airflow_flowservice._airflow.variables import delete_variable, read_variable, variable_keys, write_variable
from airflow_flowservice.exceptions import LedgerConflictError, LedgerUnavailableError, WindowError
from airflow_flowservice.ledger.entry import EntryState, LedgerEntry
from airflow_flowservice.windows.window import IngestionWindow

if TYPE_CHECKING:
    from airflow_flowservice.ledger.entry import DataflowKey

# A key must not contain a word such as "token" or "secret", since Airflow would mask the value in all logs. The
# digest of a dataflow has only hexadecimal digits, which make no such word.
LEDGER_PREFIX = "flowservice.ledger."
_INSTANT = "%Y%m%dT%H%M%SZ"
_EDGES = re.compile(r"\d{8}T\d{6}Z\.\d{8}T\d{6}Z", re.ASCII)
_PARTS = (slice(4), slice(4, 6), slice(6, 8), slice(9, 11), slice(11, 13), slice(13, 15))
# About as long as one message to the API server takes (10 to 60 ms), in seconds.
_FRESH_S = 0.1
# A claim is read back, so the search for overlapping claims directly after it need not read it again. In seconds.
_JUST_PUT_S = 2.0
# A description is a column of type TEXT, which has 65,535 bytes on MySQL; a value may be longer.
_MAX_DESCRIPTION = 60_000


def ledger_key(dataflow: DataflowKey, window: IngestionWindow) -> str:
    """Return the key of the Variable of a dataflow's window; 71 characters."""
    return f"{LEDGER_PREFIX}{dataflow.digest}.{compact(window.start)}.{compact(window.end)}"


def compact(instant: datetime) -> str:
    """Return an instant such as `20260109T000000Z`. The texts have the order of the instants."""
    return instant.astimezone(timezone.utc).strftime(_INSTANT)


def window_of_key(key: str) -> IngestionWindow | None:
    """Return the window of a Variable's key; None if it is no key of the ledger."""
    if not key.startswith(LEDGER_PREFIX):
        return None
    _, _, edges = key[len(LEDGER_PREFIX) :].partition(".")
    return _window(edges)


@lru_cache(maxsize=4096)
def _window(edges: str) -> IngestionWindow | None:
    if not _EDGES.fullmatch(edges):
        return None
    try:
        return IngestionWindow(*map(_instant, edges.split(".")))
    except (ValueError, WindowError):
        return None


def _instant(text: str) -> datetime:
    # `datetime.strptime` takes several times as long.
    year, month, day, hour, minute, second = (int(text[edge]) for edge in _PARTS)
    return datetime(year, month, day, hour, minute, second, tzinfo=timezone.utc)


def parse_entry(text: str | None) -> LedgerEntry | None:
    """Return the entry of a Variable's value or description; None if the text is no entry."""
    try:
        return LedgerEntry.from_json(json.loads(text or ""))
    except (ValueError, RecursionError):
        return None


def stored_texts(entry: LedgerEntry) -> tuple[str, str]:
    """Return the value and the description of an entry's Variable. Each call returns another value.

    Two writers can write the same version, and even the same entry: a task that Airflow starts twice. The unique
    value distinguishes them in the read-back; parsing ignores it.
    """
    text = json.dumps({**entry.to_json(), "written_by": uuid4().hex})
    return text, text if len(text) <= _MAX_DESCRIPTION else "The entry is in the value."


@dataclass(frozen=True)
class _Reading:
    """Text of a Variable, and when it was known to be the stored one.

    :param text: None if there was no Variable.
    :param at: monotonic seconds when the message was sent.
    :param is_reusable: `put` may use it instead of reading again. False for a missing Variable that the list of keys
        did not confirm, and for the text that this process wrote.
    """

    text: str | None
    at: float
    is_reusable: bool = True

    @property
    def version(self) -> int:
        entry = parse_entry(self.text)
        return entry.version if entry else 0


@dataclass
class VariableLedger:
    """Ledger of a running task, or of a trigger (there, call it by `versions.in_thread`).

    Variables have no compare-and-set. `put` reads the Variable, compares and writes it. It reads a claim back. With two
    tasks that claim at the same time:

    - If a writer's reading comes after the other's writing, it sees the other version, and writes nothing.
    - If both read before both write, the last writer's entry stays. The first writer sees it if it reads back after
      the last writer's writing, and then raises an error.
    - **Not excluded**: both read, then one writes and reads back, and then the other one writes and reads back. Both
      succeed, and the second entry stays. This requires that one writer's two messages fall between the reading and
      the writing of the other, which are next to each other. The first writer's next `put` raises an error.

    Other entries are not read back: the flow run exists by then, so its task could only log that another task wrote at
    the same time.

    Airflow 3.0 deletes and inserts a Variable in one transaction. If two writers collide there, the API server
    responds to one of them with an error, and Airflow's client repeats its request after a second or more. The
    repetition can cause the case that is not excluded. A ledger in a SQL database excludes it.

    Before Airflow 3.3, a task cannot list Variables. Then `overlapping` returns only the entry of exactly the window,
    and `entries` raises an error. The command line and the page read all entries on each version (`MetadataLedger`).
    """

    monotonic: Callable[[], float] = time.monotonic
    _seen: dict[str, _Reading] = field(default_factory=dict, repr=False)

    def get(self, dataflow: DataflowKey, window: IngestionWindow, /) -> LedgerEntry | None:
        """Return the entry of exactly this window, or None. Send one message, or two if Airflow 3.3 has none."""
        key = ledger_key(dataflow, window)
        self._seen[key] = reading = self._read(key)
        if reading.text is None:
            return None
        entry = _entry(key, reading.text)
        if entry.key != (dataflow, window):
            raise _unreadable(key)
        return entry

    def overlapping(self, dataflows: Sequence[DataflowKey], window: IngestionWindow, /) -> list[LedgerEntry]:
        """Return the entries whose windows overlap the window, sorted by window.

        On Airflow 3.3, send one message for each dataflow and one for each entry. Before 3.3, send one message for
        each dataflow, and return only the entries of exactly this window.
        """
        found = [self._overlapping(dataflow, window) for dataflow in dataflows]
        return sorted(
            (entry for entries in found for entry in entries), key=lambda entry: (entry.window, entry.dataflow)
        )

    def put(self, entry: LedgerEntry, /) -> LedgerEntry:
        """Store the entry if the stored one has the same version, and return it with the next version.

        Send three messages for a claim and two for another entry; one less if `get` or `overlapping` has just read the
        Variable. Only a claim is read back, because only a claim allows a request.

        :raises LedgerConflictError: another process changed, added or removed the entry, or claimed it at the same
            time. Another process may then have the entry, or this one's was overwritten.
        """
        key = ledger_key(*entry.key)
        self._require_unchanged(key, entry.version)
        stored = replace(entry, version=entry.version + 1)
        text, description = stored_texts(stored)
        write_variable(key, text, description=description)
        at = self.monotonic()
        if stored.state is EntryState.CLAIMED and read_variable(key) != text:
            raise _conflict(key)
        self._seen[key] = _Reading(text, at, is_reusable=False)
        return stored

    def remove(self, entry: LedgerEntry, /) -> None:
        """Remove the entry if the stored one has the same version.

        A change by another process between the comparison and the removal is not seen, and is removed.
        """
        key = ledger_key(*entry.key)
        self._require_unchanged(key, entry.version)
        delete_variable(key)
        self._seen.pop(key, None)

    def entries(
        self, dataflows: Iterable[DataflowKey] | None = None, within: IngestionWindow | None = None
    ) -> Iterator[LedgerEntry]:
        """Yield all entries, or those of the dataflows that overlap `within`, sorted by dataflow and window.

        Send a message for each entry, so use `MetadataLedger` outside of tasks.

        :raises LedgerUnavailableError: before Airflow 3.3, a task cannot list Variables.
        """
        prefixes = [LEDGER_PREFIX] if dataflows is None else [_prefix(dataflow) for dataflow in set(dataflows)]
        found = [entry for prefix in prefixes for entry in self._listed(prefix, within)]
        yield from sorted(found, key=lambda entry: entry.key)

    def _overlapping(self, dataflow: DataflowKey, window: IngestionWindow) -> list[LedgerEntry]:
        at = self.monotonic()
        keys = variable_keys(_prefix(dataflow))
        own = ledger_key(dataflow, window)
        if keys is None:
            entry = self.get(dataflow, window)
            return [entry] if entry else []
        if own not in keys:
            self._seen[own] = _Reading(None, at)
        return self._entries_of(keys, window)

    def _listed(self, prefix: str, within: IngestionWindow | None) -> list[LedgerEntry]:
        keys = variable_keys(prefix)
        if keys is None:
            raise LedgerUnavailableError(
                "a task cannot list the ledger's entries in Airflow's Variables before Airflow 3.3",
                remedy="use the command line, or a ledger in a database (ledger_conn_id)",
            )
        return self._entries_of(keys, within)

    def _entries_of(self, keys: list[str], within: IngestionWindow | None) -> list[LedgerEntry]:
        windows = ((key, window_of_key(key)) for key in keys)
        wanted = [key for key, window in windows if window and (within is None or window.overlaps(within))]
        for key in wanted:
            if not self._has_just_put(key):
                self._seen[key] = self._read(key)
        return [_entry(key, text) for key in wanted if (text := self._seen[key].text) is not None]

    def _has_just_put(self, key: str) -> bool:
        seen = self._seen.get(key)
        is_put = seen is not None and seen.text is not None and not seen.is_reusable
        return seen is not None and is_put and self.monotonic() - seen.at <= _JUST_PUT_S

    def _read(self, key: str) -> _Reading:
        """Read a Variable. If the API server reports none, confirm it by the list of keys, if there is one.

        :raises LedgerUnavailableError: the Variable exists, but the API server cannot read or decrypt it. If this
            was taken for a missing entry, an ingested window would be ingested again.
        """
        at = self.monotonic()
        if (text := read_variable(key)) is not None:
            return _Reading(text, at)
        keys = variable_keys(key)
        if keys and key in keys:
            raise LedgerUnavailableError(
                f"the Variable {key} exists, but Airflow's API server cannot read it",
                remedy="check the API server's log, its database and its fernet_key",
            )
        return _Reading(None, at, is_reusable=keys is not None)

    def _require_unchanged(self, key: str, version: int) -> None:
        """Raise an error if the stored entry is not the one that the caller changed.

        A reading that is at most `_FRESH_S` old is used again. This is as safe as another message. A response is
        also that old when the next message leaves, and only the time between reading and writing counts: another
        writer must write and read back in it to stay unseen. In two cases, the Variable is read in any case. A missing
        Variable that no list of keys confirmed: the API server also reports one if its database fails for an instant.
        The text of the last `put`: another writer that the read-back could not see may write directly after it.
        """
        seen = self._seen.get(key)
        is_fresh = seen is not None and seen.is_reusable and self.monotonic() - seen.at <= _FRESH_S
        current = seen if seen is not None and is_fresh else self._read_before_put(key, version)
        if current.text is not None:
            _entry(key, current.text)
        if current.version != version:
            raise _conflict(key)
        # The same version of another writer, which this process has not seen.
        if seen is not None and seen.version == version and seen.text != current.text:
            raise _conflict(key)

    def _read_before_put(self, key: str, version: int) -> _Reading:
        """Read a Variable; if none is expected, by the list of keys, if there is one."""
        at = self.monotonic()
        keys = variable_keys(key) if version == 0 else None
        if keys is None:
            return self._read(key)
        if key in keys:
            raise _conflict(key)
        return _Reading(None, at)


def _prefix(dataflow: DataflowKey) -> str:
    return f"{LEDGER_PREFIX}{dataflow.digest}."


def _entry(key: str, text: str) -> LedgerEntry:
    """Parse a Variable.

    :raises LedgerUnavailableError: it is no entry. It is not taken for a missing one, and never overwritten.
    """
    if (entry := parse_entry(text)) is None:
        raise _unreadable(key)
    return entry


def _unreadable(key: str) -> LedgerUnavailableError:
    return LedgerUnavailableError(
        f"the Variable {key} is not the ledger's entry of this window",
        remedy="if a user changed it, correct or delete it; if a later version of this package wrote it, upgrade",
    )


def _conflict(key: str) -> LedgerConflictError:
    return LedgerConflictError(f"another process changed the ledger's entry of this window at the same time ({key})")
