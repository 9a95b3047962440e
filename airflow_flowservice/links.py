"""Buttons from a task to Experience Platform."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperatorLink

from airflow_flowservice import _airflow

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

URL_KEY = "flow_run_url"


class FlowRunLink(BaseOperatorLink):
    """Opens the task's flow run in Experience Platform; there as soon as the run exists."""

    name = "Open in Experience Platform"

    @property
    def xcom_key(self) -> str:
        """The XCom that the UI reads the address from."""
        return URL_KEY

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey | Any) -> str:
        """The page's address; empty while there is no run.

        Airflow calls this when the task's process ends, and writes the answer over what the task pushed. An
        XCom that is not there would be logged as an error, so it is asked for only where it can be.
        """
        url = getattr(operator, "flow_run_url", None)
        if url is None and getattr(operator, "was_deferred", False):
            url = _airflow.read_xcom(ti_key, key=URL_KEY)
        return url or ""
