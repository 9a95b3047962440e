# SPDX-License-Identifier: Apache-2.0
"""Dataflows with their specifications, states and connections, parsed from Flow Service's JSON.

Flow runs are in `flow_runs`. Parsing is lenient: a missing or unexpected value becomes `None` or empty, because
Adobe's pages and samples differ from each other, and `params` of a connection depend on the connector. Only an object
without an id is refused. Texts are printable and bounded (`plain_text`).
Source: https://developer.adobe.com/experience-platform-apis/references/flow-service/
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from airflow_flowservice.api.flow_runs import (
    MAX_RUN_ERRORS,
    CreatedRun,
    FlowRun,
    FlowRunStatus,
    RunError,
    bounded_errors,
    etag_of,
)
from airflow_flowservice.api.json_values import clean_json, objects_at, required_id, text_at, texts_at, value_at
from airflow_flowservice.exceptions import ConfigurationError
from airflow_flowservice.plain_text import ID_LENGTH, remedy_for_list

__all__ = [
    "MAX_RUN_ERRORS",
    "CreatedRun",
    "DeltaColumn",
    "Flow",
    "FlowRun",
    "FlowRunStatus",
    "FlowSpec",
    "RunError",
    "bounded_errors",
    "etag_of",
]


@dataclass(frozen=True, kw_only=True)
class DeltaColumn:
    """Source column that distinguishes new rows from old rows (table-based sources).

    :param name: name of the column in the source.
    :param date_format: format of the dates in the column, such as `yyyy-MM-dd HH:mm:ss`.
    :param timezone: timezone of those dates.
    :raises ConfigurationError: a value is empty or is not a string.
    """

    name: str
    date_format: str | None = None
    timezone: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise _invalid_delta_column("its name is empty or is not a string")
        for key, value in (("dateFormat", self.date_format), ("timezone", self.timezone)):
            if value is not None and (not isinstance(value, str) or not value.strip()):
                raise _invalid_delta_column(f"its {key} is empty or is not a string")
        for field_name in ("name", "date_format", "timezone"):
            if (value := getattr(self, field_name)) is not None:
                object.__setattr__(self, field_name, value.strip())

    @classmethod
    def parse(cls, value: str | Mapping[str, Any] | DeltaColumn) -> DeltaColumn:
        """Parse a name, or a mapping with the API's keys `name`, `dateFormat`, `timezone`, which may be JSON text.

        Adobe keeps the first delta column of a dataflow, so text that a template without a value gives is refused.

        :raises ConfigurationError: another type, an unknown key, a value that is not a string, or an empty template.
        """
        if isinstance(value, str):
            value = _value_in_text(value)
        column = value if isinstance(value, DeltaColumn) else cls._of_value(value)
        for key, text in column.to_json().items():
            if text.strip("\"'").lower() in _NOTHING:
                raise _invalid_delta_column(f"its {key} is {text!r}, so its template has no value in this DAG run")
            if "{{" in text or "{%" in text:
                raise _invalid_delta_column(f"its {key} is {text!r}, a template that was not rendered")
        return column

    @classmethod
    def _of_value(cls, value: Any) -> DeltaColumn:
        if isinstance(value, str):
            return cls(name=value)
        if not isinstance(value, Mapping):
            raise _invalid_delta_column(f"it is of type {type(value).__name__}", hint=remedy_for_list(value))
        if unknown := sorted(str(key) for key in value if key not in _DELTA_COLUMN_KEYS):
            raise _invalid_delta_column(f"it has the unknown key {', '.join(unknown)}")
        fields = {_DELTA_COLUMN_KEYS[key]: each for key, each in value.items()}
        return cls(**{"name": "", **fields})

    def to_json(self) -> dict[str, str]:
        """Return the value of `params.deltaColumn` of a request, without keys that have no value."""
        values = {"name": self.name, "dateFormat": self.date_format, "timezone": self.timezone}
        return {key: value for key, value in values.items() if value is not None}


_DELTA_COLUMN_KEYS = {"name": "name", "dateFormat": "date_format", "timezone": "timezone"}
# Texts that templates without a value render to.
_NOTHING = frozenset({"", "none", "null", "undefined", "nan"})


def _value_in_text(text: str) -> Any:
    """Return the mapping or list that a text contains as JSON or as a Python literal, otherwise the text.

    A template that refers to a dictionary renders to such text. A name in brackets, such as `[updated at]`, is neither.
    """
    if not text.strip().startswith(("{", "[", "(")):
        if text.strip().startswith("LazyXComSequence("):
            raise _invalid_delta_column(f"it is {text[:80]!r}", hint=remedy_for_list(text))
        return text
    for read in (json.loads, ast.literal_eval):
        with suppress(ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            if isinstance(value := read(text.strip()), dict | list | tuple | set):
                return value
    if text.strip().startswith("{") and "{{" not in text and "{%" not in text:
        raise _invalid_delta_column(f"it is {text[:80]!r}, which is not readable as a mapping")
    return text


def _invalid_delta_column(why: str, *, hint: str = "") -> ConfigurationError:
    remedy = (
        "set delta_column to the column's name, or to a mapping with 'name' and optionally 'dateFormat' and 'timezone'"
        f"{hint}"
    )
    return ConfigurationError(f"delta_column cannot be used: {why}", remedy=remedy)


@dataclass(frozen=True, kw_only=True)
class Flow:
    """A dataflow, from `GET /flows/{id}`.

    :param state: Adobe's state, such as `enabled` or `disabled`; empty if the response has none.
    :param frequency: `scheduleParams.frequency`, such as `once` or `hour`.
    :param delta_column: delta column of the flow's `Copy` transformation, which later runs cannot change.
    :param raw: the JSON object, for values that have no field here; cleaned, but not bounded; not in the `repr`.
    """

    id: str
    name: str | None = None
    state: str = ""
    frequency: str | None = None
    delta_column: DeltaColumn | None = None
    flow_spec_id: str | None = None
    source_connection_ids: tuple[str, ...] = ()
    target_connection_ids: tuple[str, ...] = ()
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def parse(cls, raw: Any) -> Flow:
        """Parse the JSON object of a flow.

        :raises UnreadableAnswerError: the value is not an object, or has no id.
        """
        return cls(
            id=required_id(raw, "flow"),
            name=text_at(raw, "name"),
            state=text_at(raw, "state", length=ID_LENGTH) or "",
            frequency=text_at(raw, "scheduleParams", "frequency", length=ID_LENGTH),
            delta_column=_delta_column_of_copy(raw),
            # An example of Adobe's OpenAPI file has plain text instead of an object.
            flow_spec_id=text_at(raw, "flowSpec", "id", length=ID_LENGTH) or text_at(raw, "flowSpec", length=ID_LENGTH),
            source_connection_ids=texts_at(raw, "sourceConnectionIds"),
            target_connection_ids=texts_at(raw, "targetConnectionIds"),
            raw=clean_json(raw),
        )

    @property
    def enabled(self) -> bool:
        """Return True if Flow Service executes runs of the flow. A flow without a state counts as enabled."""
        return self.state.strip().lower() in ("", "enabled")

    @property
    def one_time(self) -> bool | None:
        """Return True if the flow is scheduled `once`, which on-demand runs require; None without a frequency."""
        return None if self.frequency is None else self.frequency.strip().lower() == "once"


def _delta_column_of_copy(raw: Any) -> DeltaColumn | None:
    for transformation in objects_at(raw, "transformations"):
        if (text_at(transformation, "name") or "").lower() != "copy":
            continue
        name = text_at(transformation, "params", "deltaColumn", "name")
        name = name or text_at(transformation, "params", "deltaColumn")
        if name:
            return DeltaColumn(
                name=name,
                date_format=text_at(transformation, "params", "deltaColumn", "dateFormat"),
                timezone=text_at(transformation, "params", "deltaColumn", "timezone"),
            )
    return None


@dataclass(frozen=True, kw_only=True)
class FlowSpec:
    """Specification of a kind of dataflow, from `GET /flowSpecs/{id}`.

    :param run_parameters: required parameters of a new run (`runSpec.spec.required`); None if they are unknown.
    """

    id: str
    name: str | None = None
    run_parameters: tuple[str, ...] | None = None

    @classmethod
    def parse(cls, raw: Any) -> FlowSpec:
        """Parse the JSON object.

        :raises UnreadableAnswerError: the value is not an object, or has no id.
        """
        return cls(
            id=required_id(raw, "flow specification"),
            name=text_at(raw, "name"),
            run_parameters=texts_at(raw, "runSpec", "spec", "required") or None,
        )

    @property
    def needs_delta_column(self) -> bool | None:
        """Return True if the first run needs a delta column (table-based source); None if this is unknown."""
        return None if self.run_parameters is None else "deltaColumn" in self.run_parameters


_TEST_MESSAGES = ("message", "errorMessage", "errorDetails", "reason")


@dataclass(frozen=True, kw_only=True)
class SourceConnection:
    """Source connection, from `GET /sourceConnections/{id}`.

    :param base_connection_id: connection with the credential, which several source connections can share.
    :param connection_spec_id: id of the connector's specification.
    :param data: table (`params.tableName`), or path of files (`params.path`).
    """

    id: str
    name: str | None = None
    base_connection_id: str | None = None
    connection_spec_id: str | None = None
    data: str | None = None

    @classmethod
    def parse(cls, raw: Any) -> SourceConnection:
        """Parse the JSON object.

        :raises UnreadableAnswerError: the value is not an object, or has no id.
        """
        return cls(
            id=required_id(raw, "source connection"),
            name=text_at(raw, "name"),
            base_connection_id=text_at(raw, "baseConnectionId", length=ID_LENGTH),
            connection_spec_id=text_at(raw, "connectionSpec", "id", length=ID_LENGTH)
            or text_at(raw, "connectionSpec", length=ID_LENGTH),
            data=text_at(raw, "params", "tableName") or text_at(raw, "params", "path"),
        )


@dataclass(frozen=True, kw_only=True)
class ConnectionTest:
    """Result of `GET /connections/{id}/test`, in which Adobe connects to the source with the stored credential.

    :param result: None if the response has no result.
    :param message: text of the response, if it has one.
    """

    result: bool | None = None
    message: str | None = None

    @classmethod
    def parse(cls, raw: Any) -> ConnectionTest:
        """Parse `{"items": [{"result": true}]}` or `{"result": true}`; of several results, a failure decides."""
        items = list(objects_at({"items": raw} if isinstance(raw, list) else raw, "items"))
        results = [item for item in items or [raw] if isinstance(value_at(item, "result"), bool)]
        item = min(results, key=lambda each: bool(value_at(each, "result")), default=next(iter(items), raw))
        result = value_at(item, "result")
        parts = (item, *objects_at(item, "errors"))
        texts = (text_at(part, name) for part in parts for name in _TEST_MESSAGES)
        return cls(result=result if isinstance(result, bool) else None, message=next(filter(None, texts), None))


@dataclass(frozen=True, kw_only=True)
class TargetConnection:
    """Target connection, from `GET /targetConnections/{id}`.

    :param dataset_id: dataset in the data lake that the dataflow writes to.
    """

    id: str
    name: str | None = None
    dataset_id: str | None = None

    @classmethod
    def parse(cls, raw: Any) -> TargetConnection:
        """Parse the JSON object.

        :raises UnreadableAnswerError: the value is not an object, or has no id.
        """
        return cls(
            id=required_id(raw, "target connection"),
            name=text_at(raw, "name"),
            dataset_id=text_at(raw, "params", "dataSetId", length=ID_LENGTH)
            or text_at(raw, "params", "datasetId", length=ID_LENGTH),
        )


# --- states ---

# States of a dataflow that end without an action of a user. The first flow run of a table-based dataflow changes the
# dataflow, which can be `updating` meanwhile.
PASSING_STATES = ("initializing", "pending", "enabling", "enabled-finalizing", "updating")

_PLAIN_PASSING_STATES = frozenset(re.sub(r"[\W_]", "", state) for state in PASSING_STATES)
_PASSING_STATE_IN_TEXT = re.compile(
    r"(?<![\w-])(?:" + "|".join(state.replace("-", "[-_ ]?") for state in PASSING_STATES) + r")(?![\w-])",
    re.IGNORECASE,
)

# Adobe's documents have such a message for another API: a run is already in progress for a dataflow.
_ACTIVE_RUN = re.compile(
    r"\b(?:already|currently|still)\s+(?:running|going\s+on|in[\s-]?progress|active)\b"
    r"|\banother\s+(?:flow[\s-]?)?run\b|\brun\b[^.]{0,60}\bis\s+in[\s-]?progress\b",
    re.IGNORECASE,
)


def is_passing_state(state: str) -> bool:
    """Return whether a dataflow's state is a passing one, ignoring case and punctuation."""
    return re.sub(r"[\W_]", "", state).lower() in _PLAIN_PASSING_STATES


def names_passing_state(message: str) -> bool:
    """Return whether a message of Flow Service contains the name of a passing state."""
    return _PASSING_STATE_IN_TEXT.search(message) is not None


def names_active_run(message: str) -> bool:
    """Return whether a message of Flow Service states that a run of the dataflow is active."""
    return _ACTIVE_RUN.search(message) is not None
