# SPDX-License-Identifier: Apache-2.0
"""Permission checks of the page.

Airflow does not protect the applications that a plugin mounts, so the page queries Airflow's auth manager itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import ConnectionDetails, DagAccessEntity, DagDetails
from airflow.models.connection import Connection
from airflow.models.dag import DagModel

from airflow_flowservice._airflow import dag_facts, database
from airflow_flowservice.plugins.error_responses import PageRequestError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from sqlalchemy.orm import Session

    from airflow_flowservice._airflow.database import Feed

# The page derives a window from a DAG run, its task instances and their XComs.
_REQUIRED_ENTITIES = (DagAccessEntity.RUN, DagAccessEntity.TASK_INSTANCE, DagAccessEntity.XCOM)
_FILL_PERMISSIONS: tuple[tuple[Literal["POST", "PUT"], DagAccessEntity, str], ...] = (
    ("POST", DagAccessEntity.RUN, "create runs of"),
    ("PUT", DagAccessEntity.TASK_INSTANCE, "clear tasks of"),
)
_DAG_REMEDY = "ask an administrator of Airflow for the permission to read this DAG, its runs, task instances and XComs"


def readable_feeds(session: Session, *, user: Any, dag_id: str | None = None) -> list[Feed]:
    """Return the tasks that ingest into dataflows, limited to the DAGs that the user may read.

    :param dag_id: return only the tasks of this DAG.
    :raises PageRequestError: 403, the user may not read the XComs of any DAG, or of the given DAG.
    """
    dag_ids = set(get_auth_manager().get_authorized_dag_ids(user=user, method="GET", session=session))
    if dag_id is not None:
        _require_dag(dag_id, dag_ids=dag_ids, user=user)
        dag_ids = {dag_id}
    feeds = database.feeds(session, dag_ids=sorted(dag_ids))
    readable = _readable(session, {feed.dag_id for feed in feeds}, user=user)
    return [feed for feed in feeds if feed.dag_id in readable]


def feeds_of_flow(session: Session, *, user: Any, flow_id: str, dag_id: str | None) -> list[Feed]:
    """Return the tasks that ingest into a dataflow, limited to the DAGs that the user may read.

    :raises PageRequestError: 404, there is no such task; or as `readable_feeds`.
    """
    feeds = [feed for feed in readable_feeds(session, user=user, dag_id=dag_id) if feed.flow_id == flow_id]
    if not feeds:
        raise PageRequestError(
            404, "No task that you may read ingests into this dataflow", remedy="choose one that is listed"
        )
    return feeds


def fill_refusal(dag_id: str, *, user: Any) -> str | None:
    """Return the sentence that states why the user may not fill windows of a DAG; None if the user may.

    Airflow's API checks this again, so the sentence only explains why the page's buttons are disabled.
    """
    details = DagDetails(id=dag_id, team_name=DagModel.get_team_name(dag_id))
    for method, entity, text in _FILL_PERMISSIONS:
        allowed = get_auth_manager().is_authorized_dag(method=method, access_entity=entity, details=details, user=user)
        if not allowed:
            return f"You may not {text} DAG {dag_id}. Ask an administrator of Airflow for this permission."
    return None


def ingesting_dag_ids(session: Session) -> frozenset[str]:
    """Return all DAGs that ingest into dataflows, also those that never ran. No permission is checked."""
    return frozenset({*dag_facts.dag_schedules(session), *database.dags_with_output(session)})


def readable_dag_ids(session: Session, dag_ids: Collection[str], *, user: Any) -> frozenset[str]:
    """Return those of the DAGs that the user may read.

    :raises PageRequestError: 403, the user may not read the XComs of any DAG.
    """
    authorized = get_auth_manager().get_authorized_dag_ids(user=user, method="GET", session=session)
    return frozenset(_readable(session, authorized.intersection(dag_ids), user=user))


def _readable(session: Session, dag_ids: Iterable[str], *, user: Any) -> set[str]:
    """Return the DAGs whose runs, task instances and XComs the user may read.

    :raises PageRequestError: 403, the user may not read the XComs of any DAG.
    """
    ordered = sorted(dag_ids)
    teams = _team_names(session, ordered)
    readable = {each for each in ordered if _may_read(user, DagDetails(id=each, team_name=teams.get(each)))}
    if not readable and not _may_read(user, None):
        raise PageRequestError(403, "You may not read the XComs of any DAG", remedy=_DAG_REMEDY)
    return readable


def _team_names(session: Session, dag_ids: list[str]) -> dict[str, str | None]:
    """Return the teams of DAGs, of those that have one."""
    if not hasattr(DagModel, "get_dag_id_to_team_name_mapping"):  # before 3.2, with a query for each DAG
        return {dag_id: DagModel.get_team_name(dag_id, session=session) for dag_id in dag_ids}
    return DagModel.get_dag_id_to_team_name_mapping(dag_ids, session=session) if dag_ids else {}


def require_connection(conn_id: str, *, user: Any) -> None:
    """Raise an error if the user may not read a connection, even if the connection does not exist.

    :raises PageRequestError: 403.
    """
    details = ConnectionDetails(conn_id=conn_id, team_name=Connection.get_team_name(conn_id))
    if not get_auth_manager().is_authorized_connection(method="GET", details=details, user=user):
        raise PageRequestError(
            403,
            f"You may not read the connection {conn_id!r}, which is needed to query Flow Service",
            remedy="ask an administrator of Airflow for the permission to read connections",
        )


def _require_dag(dag_id: str, *, dag_ids: Iterable[str], user: Any) -> None:
    """Raise an error if the user may not read a DAG, or if it does not exist.

    Airflow's wildcard `~` (all DAGs) is never among the authorized ids, so it is refused.
    """
    details = DagDetails(id=dag_id, team_name=DagModel.get_team_name(dag_id))
    if dag_id not in dag_ids or not _may_read(user, details):
        raise PageRequestError(403, "There is no such DAG, or you may not read its XComs", remedy=_DAG_REMEDY)


def _may_read(user: Any, details: DagDetails | None) -> bool:
    manager = get_auth_manager()
    return all(
        manager.is_authorized_dag(method="GET", access_entity=entity, details=details, user=user)
        for entity in _REQUIRED_ENTITIES
    )
