"""Whether a flow run that succeeded is good enough: some records may have failed, or there may be none at all."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_flowservice.exceptions import FlowRunEmptyError, FlowRunIncompleteError
from airflow_flowservice.runs.summary import window_text

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """What a task takes from a flow run that succeeded, wholly or in part.

    :param max_failed_records: how many records may fail; None: any number.
    :param max_failed_ratio: which share of the records may fail, 0 to 1, as `failed_ratio` counts; None: any.
    :param on_empty: for a run without records: `succeed`, else it is an error, which the task turns into a skip
        (`skip`) or not (`fail`).
    """

    max_failed_records: int | None = None
    max_failed_ratio: float | None = None
    on_empty: str = "succeed"

    def judge(self, summary: Mapping[str, Any]) -> None:
        """Raise unless the run is good enough.

        A success that does not say how many records failed is taken; where records are known to have failed, and
        it cannot be told how many, or of how many, nothing is.

        :param summary: as `outcome.summary_of` gives it, of a run that succeeded, wholly or in part.
        :raises FlowRunIncompleteError: more records failed than a limit allows, or it cannot be told.
        :raises FlowRunEmptyError: it had no records, and that is not taken for granted.
        """
        if self.max_failed_records is not None:
            _hold("max_failed_records", self.max_failed_records, summary["failed_records"], summary)
        if self.max_failed_ratio is not None:
            _hold("max_failed_ratio", self.max_failed_ratio, failed_ratio(summary), summary)
        if self.on_empty != "succeed" and is_empty(summary):
            raise FlowRunEmptyError("the flow run succeeded without any records", **_where(summary))


def failed_ratio(summary: Mapping[str, Any]) -> float | None:
    """The share of a run's records that failed, 0 to 1; None if it cannot be told.

    That is failed over input records, or over output and failed records where the input is not known. Counts are those
    of `metrics.recordSummary`: https://experienceleague.adobe.com/en/docs/experience-platform/sources/api-tutorials/monitor
    """
    failed, read, written = (summary[f"{kind}_records"] for kind in ("failed", "input", "output"))
    if not failed:
        return None if failed is None else 0.0
    if read is None and written is None:
        return None
    records = written + failed if read is None else read
    return min(1.0, failed / records) if records > 0 else 1.0


def is_empty(summary: Mapping[str, Any]) -> bool:
    """Whether a whole success had no records: none written, or none read where nobody says what was written.

    What is not known is not empty. A run whose records all failed is not, either.
    """
    if summary["status"] != "success" or summary["failed_records"]:
        return False
    written = summary["output_records"]
    return bool((summary["input_records"] if written is None else written) == 0)


def _hold(limit: str, most: float, found: float | None, summary: Mapping[str, Any]) -> None:
    if found is not None:
        if found > most:
            raise FlowRunIncompleteError(f"{_failures(summary)}, over {limit}, {most:,}", **_where(summary))
        return
    if summary["status"] == "success" and summary["failed_records"] is None:
        log.warning(
            "Flow run %s succeeded and does not say how many records failed; taken to be within %s, %s",
            summary["id"],
            limit,
            most,
        )
        return
    raise FlowRunIncompleteError(
        f"{_failures(summary)}, so it cannot be told whether {limit}, {most:,}, is kept", **_where(summary)
    )


def _failures(summary: Mapping[str, Any]) -> str:
    failed, ratio = summary["failed_records"], failed_ratio(summary)
    if failed is None:
        return f"the flow run ended as {summary['status']} and does not say how many records failed"
    share = "of a number that is not known" if ratio is None else f"a share of {ratio:.6g}"
    return f"{failed:,} record{'' if failed == 1 else 's'} failed, {share}{_known(summary)}"


def _known(summary: Mapping[str, Any]) -> str:
    counts = [
        f"{summary[name]:,} {verb}"
        for name, verb in (("input_records", "read"), ("output_records", "written"))
        if summary[name] is not None
    ]
    return f" ({', '.join(counts)})" if counts else ""


def _where(summary: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "flow_id": summary["flow_id"],
        "window": window_text(summary),
        "flow_run_id": summary["id"],
        "url": summary["url"],
    }
