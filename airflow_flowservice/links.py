"""Buttons from a task to Experience Platform."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperatorLink

from airflow_flowservice import _context

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

URL_KEY = "flow_run_url"
DATAFLOW_KEY = "dataflow_url"


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


def dataflow_page(url: str) -> str:
    """The page of the dataflow, from that of one of its runs (see `FlowServiceHook.run_url`)."""
    return url.partition("/activity/")[0]


def _address(operator: BaseOperator, ti_key: Any, *, key: str) -> str:
    """What the task has in an attribute of the key's name, or has pushed.

    Airflow asks for it when the task's process ends, and writes the answer over what the task pushed. An XCom
    that is not there would be logged as an error, so it is asked for only where it can be.
    """
    url = getattr(operator, key, None)
    if url is None and getattr(operator, "was_deferred", False):
        url = _context.read_xcom(ti_key, key=key)
    return url or ""
