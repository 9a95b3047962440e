"""Buttons from a task to Experience Platform."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperatorLink

from airflow_flowservice._airflow import task_context
from airflow_flowservice._airflow.pages import dataflow_page
from airflow_flowservice._airflow.task_context import DATAFLOW_KEY, URL_KEY

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

__all__ = ["DataflowLink", "FlowRunLink", "dataflow_page"]


class FlowRunLink(BaseOperatorLink):
    """Opens the task's flow run in Experience Platform; there as soon as the run exists."""

    name = "Open in Experience Platform"

    @property
    def xcom_key(self) -> str:
        """The XCom that the UI reads the address from."""
        return URL_KEY

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey | Any) -> str:
        """The page's address; empty while there is no run."""
        return _address(operator, ti_key, key=URL_KEY)


class DataflowLink(BaseOperatorLink):
    """Opens the task's dataflow, with all its runs, in Experience Platform; there before a run is created."""

    name = "Open dataflow in Experience Platform"

    @property
    def xcom_key(self) -> str:
        """The XCom that the UI reads the address from."""
        return DATAFLOW_KEY

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey | Any) -> str:
        """The page's address; empty while the dataflow is not known."""
        return _address(operator, ti_key, key=DATAFLOW_KEY)


def _address(operator: BaseOperator, ti_key: Any, *, key: str) -> str:
    """What the task has in an attribute of the key's name, or has pushed.

    Airflow asks for it when the task's process ends, and writes the answer over what the task pushed. An XCom
    that is not there would be logged as an error, so it is asked for only where it can be.
    """
    url = getattr(operator, key, None)
    if url is None and getattr(operator, "was_deferred", False):
        url = task_context.read_xcom(ti_key, key=key)
    return url or ""
