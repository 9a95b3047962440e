# SPDX-License-Identifier: Apache-2.0
"""Entry of the ledger: one window of one dataflow, the task that owns it, and its flow run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from enum import Enum
from functools import lru_cache
from hashlib import sha256
from math import isfinite
from typing import Any, TypeVar

from airflow_flowservice.plain_text import canonical_id
from airflow_flowservice.windows.window import END, START, IngestionWindow, window_from_json, window_to_json

_Value = TypeVar("_Value")
_LATEST = datetime(9999, 1, 1, tzinfo=timezone.utc).timestamp()


class EntryState(str, Enum):
    """State of a window in the ledger. The values are stored."""

    CLAIMED = "claimed"  # a task stored its intent; a POST may have been sent
    CREATED = "created"  # the flow run's id is known, its result is not
    INGESTED = "ingested"  # the flow run succeeded


@dataclass(frozen=True, order=True)
class DataflowKey:
    """Dataflow of an organization's sandbox. Dataflow ids are unique only within a sandbox."""

    organization: str
    sandbox: str
    flow_id: str

    @property
    def digest(self) -> str:
        """Return 16 hexadecimal digits that identify the dataflow, for the names of stored values."""
        return sha256("\n".join((self.organization, self.sandbox, self.flow_id)).encode()).hexdigest()[:16]

    @property
    def canonical(self) -> DataflowKey:
        """Return the key with the dataflow id as Adobe writes it: a UUID in lower case."""
        flow_id = canonical_id(self.flow_id)
        return self if flow_id == self.flow_id else replace(self, flow_id=flow_id)

    @property
    def spellings(self) -> tuple[DataflowKey, ...]:
        """Return the keys under which entries of the dataflow may be stored.

        Earlier versions stored an id as the DAG has it, also a UUID in upper case.
        """
        upper = replace(self, flow_id=self.flow_id.upper())
        return (self, upper) if upper.canonical == self != upper else (self,)

    def __str__(self) -> str:
        return f"{self.flow_id} in sandbox {self.sandbox} of {self.organization}"


@dataclass(frozen=True, kw_only=True)
class EarlierRun:
    """Flow run that ingested an entry's window before the window was ingested again on request.

    :param replaced_at: epoch seconds of the request to ingest again.
    :param replaced_by: task (`LedgerEntry.owner`) that requested it.
    """

    flow_run_id: str
    replaced_at: float
    replaced_by: str


@dataclass(frozen=True, kw_only=True)
class LedgerEntry:
    """Window of a dataflow in the ledger.

    :param owner: task instance of the last claim: `DAG_ID/RUN_ID/TASK_ID/MAP_INDEX`.
    :param delivered: a task ended as a success with this flow run, so a clear requests the window again.
    :param intent: JSON object of `runs.intent.Intent`; opaque here.
    :param output_records: records written by the flow run, if known.
    :param earlier: flow runs that ingested the window before; oldest first.
    :param updated_at: epoch seconds of the last change, by the clock of the process that wrote it.
    :param version: increased by each change; 0 if the entry was never stored.
    """

    dataflow: DataflowKey
    window: IngestionWindow
    state: EntryState
    owner: str
    flow_run_id: str | None = None
    delivered: bool = False
    intent: Mapping[str, Any] | None = field(default=None, hash=False)
    output_records: int | None = None
    earlier: tuple[EarlierRun, ...] = ()
    updated_at: float = 0.0
    version: int = field(default=0)

    @property
    def key(self) -> tuple[DataflowKey, IngestionWindow]:
        """Return the unique key of the entry."""
        return self.dataflow, self.window

    def to_json(self) -> dict[str, Any]:
        """Return the entry as a JSON object; times of the window are ISO 8601 in UTC."""
        return {
            **asdict(self.dataflow),
            **window_to_json(self.window),
            "state": self.state.value,
            "owner": self.owner,
            "flow_run_id": self.flow_run_id,
            "delivered": self.delivered,
            "intent": None if self.intent is None else dict(self.intent),
            "output_records": self.output_records,
            "earlier": [asdict(run) for run in self.earlier],
            "updated_at": self.updated_at,
            "version": self.version,
        }

    @classmethod
    def from_json(cls, value: Any) -> LedgerEntry | None:
        """Parse a JSON object as `to_json` returns it, and ignore unknown fields of a later version.

        Return None if the value is no entry, for instance since a user changed a field to another type.
        """
        try:
            window = _window(value["window_start"], value["window_end"])
            if window is None:
                return None
            return cls(
                dataflow=_dataflow(value["organization"], value["sandbox"], value["flow_id"]),
                window=window,
                state=EntryState(value["state"]),
                owner=_text(value["owner"]),
                flow_run_id=_optional(value.get("flow_run_id"), _text),
                delivered=bool(_optional(value.get("delivered"), _whole_number)),
                intent=parse_intent(value.get("intent")),
                output_records=_optional(value.get("output_records"), _whole_number),
                earlier=tuple(parse_earlier_run(run) for run in value.get("earlier") or ()),
                updated_at=_optional(value.get("updated_at"), _finite_number) or 0.0,
                version=int(value.get("version") or 0),
            )
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError):
            return None


# The dataflows of an organization have mostly the same windows, and parsing times takes most of the time.
@lru_cache(maxsize=4096)
def _window(start: str | None, end: str | None) -> IngestionWindow | None:
    return window_from_json({START: start, END: end})


@lru_cache(maxsize=4096)
def _dataflow(organization: Any, sandbox: Any, flow_id: Any) -> DataflowKey:
    return DataflowKey(_text(organization), _text(sandbox), _text(flow_id))


def parse_earlier_run(value: Mapping[str, Any]) -> EarlierRun:
    """Return the flow run of a JSON object, and ignore unknown fields of a later version.

    :raises ValueError: a field has another type; or, likewise, KeyError, TypeError and OverflowError.
    """
    return EarlierRun(
        flow_run_id=_text(value["flow_run_id"]),
        replaced_at=_instant(value["replaced_at"]),
        replaced_by=_text(value["replaced_by"]),
    )


def parse_intent(value: Any) -> Mapping[str, Any] | None:
    """Return a value that is a JSON object or None.

    :raises TypeError: it is neither.
    """
    if value is None or isinstance(value, dict):
        return value
    raise TypeError


def _optional(value: Any, parse: Callable[[Any], _Value]) -> _Value | None:
    return None if value is None else parse(value)


def _text(value: Any) -> str:
    """Return a text without lone surrogates, which no address and no database can have."""
    if not isinstance(value, str):
        raise TypeError
    if not value.isascii():
        value.encode()
    return value


def _whole_number(value: Any) -> int:
    if not isinstance(value, int):
        raise TypeError
    return value


def _finite_number(value: Any) -> float:
    number = float(value)
    if not isfinite(number):
        raise ValueError
    return number


def _instant(value: Any) -> float:
    seconds = _finite_number(value)
    if not 0 <= seconds < _LATEST:
        raise ValueError
    return seconds
