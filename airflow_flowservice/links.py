# SPDX-License-Identifier: Apache-2.0
"""Links from a task to Experience Platform, which Airflow shows as buttons."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperatorLink

from airflow_flowservice._airflow import task_context
from airflow_flowservice._airflow.pages import dataflow_page, is_experience_page
from airflow_flowservice._airflow.task_context import DATAFLOW_KEY, URL_KEY

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

__all__ = ["DataflowLink", "FlowRunLink", "dataflow_page"]


class FlowRunLink(BaseOperatorLink):
    """Link to the task's flow run; available when the flow run exists."""

    name = "Open in Experience Platform"

    @property
    def xcom_key(self) -> str:
        """Return the key of the XCom from which the UI reads the address."""
        return URL_KEY

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey | Any) -> str:
        """Return the page's address; empty if there is no flow run yet."""
        return _address(operator, ti_key, key=URL_KEY)


class DataflowLink(BaseOperatorLink):
    """Link to the task's dataflow with all its flow runs; available before a flow run is created."""

    name = "Open dataflow in Experience Platform"

    @property
    def xcom_key(self) -> str:
        """Return the key of the XCom from which the UI reads the address."""
        return DATAFLOW_KEY

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey | Any) -> str:
        """Return the page's address; empty if the dataflow is not known yet."""
        return _address(operator, ti_key, key=DATAFLOW_KEY)


def _address(operator: BaseOperator, ti_key: Any, *, key: str) -> str:
    """Return the attribute of the key's name, or the XCom that the task pushed; empty for any other host.

    Airflow calls this when the task's process ends, and overwrites the XCom with the result. A missing XCom
    would be logged as an error, so only a task that was deferred reads it.
    """
    url = getattr(operator, key, None)
    if url is None and getattr(operator, "was_deferred", False):
        url = task_context.read_xcom(ti_key, key=key)
    is_shown = isinstance(url, str) and is_experience_page(url, organization=_known_organization(operator))
    return str(url) if is_shown else ""


def _known_organization(operator: BaseOperator) -> str | None:
    """Return the organization of the connection if this process has already looked it up."""
    hook = vars(operator).get("_hook")
    client = vars(hook).get("client") if hook is not None else None
    return getattr(client, "org_id", None)
