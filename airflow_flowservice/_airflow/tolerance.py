# SPDX-License-Identifier: Apache-2.0
"""The tolerance of a task: limits for failed records, and the result of a flow run without records.

DAG files import this module, so it imports nothing heavy.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from airflow_flowservice.exceptions import ConfigurationError, FlowRunEmptyError, FlowRunIncompleteError

if TYPE_CHECKING:
    from airflow_flowservice.runs.summary import FlowRunSummary

log = logging.getLogger(__name__)

_ON_EMPTY = ("succeed", "skip", "fail")


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """Limits that a task sets for a flow run that succeeded fully or in part.

    :param max_failed_records: maximum number of failed records; None allows any number.
    :param max_failed_ratio: maximum share of failed records, from 0 to 1, as `FlowRunSummary.failed_ratio` counts;
        None allows any share.
    :param on_empty: result of the task if the run has no records: `succeed`, `skip` or `fail`.
    """

    max_failed_records: int | None = None
    max_failed_ratio: float | None = None
    on_empty: str = "succeed"

    @classmethod
    def of_task(cls, *, max_failed_records: int | None, max_failed_ratio: float | None, on_empty: str) -> Tolerance:
        """Validate a task's parameters when the DAG file is parsed.

        :raises ConfigurationError: a limit is not a number or is out of range, or `on_empty` has an unknown value.
        """
        _require_number("max_failed_records", max_failed_records, int)
        _require_number("max_failed_ratio", max_failed_ratio, (int, float))
        if max_failed_ratio is not None and max_failed_ratio > 1:
            raise ConfigurationError(
                f"max_failed_ratio is {max_failed_ratio!r}", remedy="set max_failed_ratio to a share from 0 to 1"
            )
        if on_empty not in _ON_EMPTY:
            raise ConfigurationError(f"on_empty is {on_empty!r}", remedy=f"use one of {_ON_EMPTY}")
        return cls(max_failed_records=max_failed_records, max_failed_ratio=max_failed_ratio, on_empty=on_empty)

    def to_arguments(self) -> dict[str, Any]:
        """Return the trigger's arguments.

        Default values are omitted, because a triggerer of an earlier version does not know these arguments.
        """
        values = {field.name: (getattr(self, field.name), field.default) for field in fields(self)}
        return {name: value for name, (value, default) in values.items() if value != default}

    def require(self, summary: FlowRunSummary) -> None:
        """Raise if the task does not accept the run.

        A full success without a count of failed records is accepted. If records are known to have failed, and their
        number or share is not known, the run is not accepted.

        :param summary: of a run that succeeded fully or in part.
        :raises FlowRunIncompleteError: more records failed than a limit allows, or the number is not known.
        :raises FlowRunEmptyError: the run had no records, and `on_empty` is not `succeed`.
        """
        if self.max_failed_records is not None:
            _require_limit("max_failed_records", self.max_failed_records, summary.failed_records, summary)
        if self.max_failed_ratio is not None:
            _require_limit("max_failed_ratio", self.max_failed_ratio, summary.failed_ratio, summary)
        if self.on_empty != "succeed" and summary.is_empty:
            raise FlowRunEmptyError("the flow run succeeded without any records", **summary.error_fields)


def _require_number(name: str, value: Any, kind: Any) -> None:
    if value is not None and (not isinstance(value, kind) or isinstance(value, bool) or not value >= 0):
        raise ConfigurationError(f"{name} is {value!r}", remedy=f"set {name} to a number of at least 0, or to None")


def _require_limit(limit: str, maximum: float, found: float | None, summary: FlowRunSummary) -> None:
    if found is not None:
        if found > maximum:
            raise FlowRunIncompleteError(f"{_failures(summary)}, over {limit}, {maximum:,}", **summary.error_fields)
        return
    if summary.status == "success" and summary.failed_records is None:
        log.warning(
            "Flow run %s succeeded and does not report how many records failed; assuming that %s, %s, is kept",
            summary.id,
            limit,
            maximum,
        )
        return
    raise FlowRunIncompleteError(
        f"{_failures(summary)}, so it is not known whether {limit}, {maximum:,}, is kept", **summary.error_fields
    )


def _failures(summary: FlowRunSummary) -> str:
    failed, ratio = summary.failed_records, summary.failed_ratio
    if failed is None:
        return f"the flow run ended as {summary.status} and does not report how many records failed"
    share = "of an unknown number" if ratio is None else f"a share of {ratio:.6g}"
    source = " (derived from the other counts)" if summary.failed_records_derived else ""
    return f"{failed:,} record{'' if failed == 1 else 's'} failed{source}, {share}{_known_counts(summary)}"


def _known_counts(summary: FlowRunSummary) -> str:
    counts = ((summary.input_records, "read"), (summary.output_records, "written"))
    known = [f"{count:,} {verb}" for count, verb in counts if count is not None]
    return f" ({', '.join(known)})" if known else ""
