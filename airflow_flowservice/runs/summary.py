"""What a flow run came to, as the JSON that crosses between trigger, worker and XCom."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow_flowservice.exceptions import FlowRunFailedError
from airflow_flowservice.windows.window import IngestionWindow, iso

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_flowservice.api.models import FlowRun

SUCCEEDED = frozenset({"success", "partial_success"})
_COUNTS = (
    "input_records",
    "output_records",
    "failed_records",
    "input_bytes",
    "output_bytes",
    "input_files",
    "output_files",
)


def summary_of_new(*, flow_run_id: str, flow_id: str, window: IngestionWindow | None, url: str) -> dict[str, Any]:
    """The summary of a run that was just created, and not read yet."""
    return {
        "id": flow_run_id,
        "flow_id": flow_id,
        "status": "created",
        "window_start": _iso(window.start if window else None),
        "window_end": _iso(window.end if window else None),
        **dict.fromkeys(_COUNTS),
        "errors": [],
        "url": url,
    }


def summary_of(
    run: FlowRun, *, flow_id: str | None = None, window: IngestionWindow | None = None, url: str | None = None
) -> dict[str, Any]:
    """The summary of a run as it was read: the XCom `flow_run`, and the payload of the trigger's event.

    `{"id", "flow_id", "status", "window_start", "window_end", "input_records", "output_records",
    "failed_records", "input_bytes", "output_bytes", "input_files", "output_files", "errors", "url"}`;
    times are ISO 8601, UTC; counts are None where Flow Service does not say; errors are
    `{"code", "message"}`.

    :param window: the window that was asked for; without it, the one that the run shows, if it does.
    """
    return {
        "id": run.id,
        "flow_id": run.flow_id or flow_id,
        "status": run.status.value,
        "window_start": _iso(window.start if window else run.window_start),
        "window_end": _iso(window.end if window else run.window_end),
        **{name: getattr(run, name) for name in _COUNTS},
        "errors": [{"code": error.code, "message": error.message} for error in run.errors],
        "url": url,
    }


def require_success(summary: Mapping[str, Any]) -> None:
    """Raise unless the run has succeeded, wholly or in part.

    :raises FlowRunFailedError: with the run's own errors in the message.
    """
    if summary["status"] in SUCCEEDED:
        return
    errors = "; ".join(": ".join(filter(None, (e["code"], e["message"]))) for e in summary["errors"])
    codes = [e["code"] for e in summary["errors"] if e["code"]]
    raise FlowRunFailedError(
        f"the flow run ended as {summary['status']}: {errors or 'Flow Service gives no reason'}",
        flow_id=summary["flow_id"],
        window=window_text(summary),
        flow_run_id=summary["id"],
        code=codes[0] if codes else None,
        url=summary["url"],
    )


def describe(summary: Mapping[str, Any]) -> str:
    """One line for the log."""
    counts = [
        f"{summary[f'{way}_{what}']:,} {what} {verb}"
        for way, verb in (("input", "read"), ("output", "written"), ("failed", "failed"))
        for what in ("records",)
        if summary[f"{way}_{what}"] is not None
    ]
    window = window_text(summary)
    parts = [f"Flow run {summary['id']} ended as {summary['status']}", f"window {window}" if window else "", *counts]
    return ", ".join(filter(None, parts))


def window_text(summary: Mapping[str, Any]) -> str | None:
    """The summary's window as text, or None."""
    start, end = summary["window_start"], summary["window_end"]
    return f"{start}/{end}" if start and end else None


def _iso(moment: datetime | None) -> str | None:
    return iso(moment) if moment else None
