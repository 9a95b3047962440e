"""Whose windows a user may see: what a plugin mounts is open until it asks Airflow's auth manager itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import ConnectionDetails, DagAccessEntity, DagDetails
from airflow.models.connection import Connection
from airflow.models.dag import DagModel

from airflow_flowservice import _metadata
from airflow_flowservice.plugins.error_responses import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.orm import Session

    from airflow_flowservice._metadata import Feed

# A window is told from a DAG run, its task instances and what these pushed.
_READ = (DagAccessEntity.RUN, DagAccessEntity.TASK_INSTANCE, DagAccessEntity.XCOM)
_HOW = "ask an administrator of Airflow for the permission to read this DAG, its runs, task instances and XComs"


def readable_feeds(session: Session, *, user: Any, dag_id: str | None = None) -> list[Feed]:
    """The tasks that feed dataflows, of the DAGs that a user may read.

    :param dag_id: of this DAG alone.
    :raises Problem: 403, the user may read no DAG's XComs, or not this DAG's.
    """
    dag_ids = set(get_auth_manager().get_authorized_dag_ids(user=user, method="GET", session=session))
    if dag_id is not None:
        _require_dag(dag_id, dag_ids=dag_ids, user=user)
        dag_ids = {dag_id}
    feeds = _metadata.feeds(session, dag_ids=sorted(dag_ids))
    readable = {each for each in sorted({feed.dag_id for feed in feeds}) if _may_read(user, DagDetails(id=each))}
    if not readable and not _may_read(user, None):
        raise Problem(403, "You may not read the XComs of any DAG", remedy=_HOW)
    return [feed for feed in feeds if feed.dag_id in readable]


def require_connection(conn_id: str, *, user: Any) -> None:
    """Refuse a user who may not read a connection, whether or not there is one.

    :raises Problem: 403.
    """
    details = ConnectionDetails(conn_id=conn_id, team_name=Connection.get_team_name(conn_id))
    if not get_auth_manager().is_authorized_connection(method="GET", details=details, user=user):
        raise Problem(
            403,
            f"You may not read the connection {conn_id!r}, with which Flow Service would be asked",
            remedy="ask an administrator of Airflow for the permission to read connections",
        )


def _require_dag(dag_id: str, *, dag_ids: Iterable[str], user: Any) -> None:
    """An id such as `~`, which Airflow takes for all DAGs, is none that a user is authorized for."""
    if dag_id not in dag_ids or not _may_read(user, DagDetails(id=dag_id)):
        raise Problem(403, "There is no such DAG, or you may not read its XComs", remedy=_HOW)


def _may_read(user: Any, details: DagDetails | None) -> bool:
    manager = get_auth_manager()
    if details is not None and details.id is not None:
        details.team_name = DagModel.get_team_name(details.id)
    return all(
        manager.is_authorized_dag(method="GET", access_entity=entity, details=details, user=user) for entity in _READ
    )
