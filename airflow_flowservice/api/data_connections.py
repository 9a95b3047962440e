"""What a dataflow reads from and writes to: its source connection and its target connection.

Parsing is lenient, as in `models`; `params` depend on the connector, and Adobe describes only some of them.
Source: https://developer.adobe.com/experience-platform-apis/references/flow-service/
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from airflow_flowservice.api import _json as read
from airflow_flowservice.exceptions import UnreadableAnswerError


@dataclass(frozen=True, kw_only=True)
class SourceConnection:
    """From `GET /sourceConnections/{id}`.

    :param base_connection_id: the connection with the credential, which several source connections can share.
    :param connection_spec_id: tells the connector.
    :param data: the table (`params.tableName`), or the path of files (`params.path`).
    """

    id: str
    name: str | None = None
    base_connection_id: str | None = None
    connection_spec_id: str | None = None
    data: str | None = None

    @classmethod
    def parse(cls, raw: Any) -> SourceConnection:
        """From its JSON object.

        :raises UnreadableAnswerError: it is no object, or has no id.
        """
        return cls(
            id=_id_of(raw, "source connection"),
            name=read.text(raw, "name"),
            base_connection_id=read.text(raw, "baseConnectionId"),
            connection_spec_id=read.text(raw, "connectionSpec", "id"),
            data=read.text(raw, "params", "tableName") or read.text(raw, "params", "path"),
        )


@dataclass(frozen=True, kw_only=True)
class TargetConnection:
    """From `GET /targetConnections/{id}`.

    :param dataset_id: the dataset in the data lake that is filled.
    """

    id: str
    name: str | None = None
    dataset_id: str | None = None

    @classmethod
    def parse(cls, raw: Any) -> TargetConnection:
        """From its JSON object.

        :raises UnreadableAnswerError: it is no object, or has no id.
        """
        return cls(
            id=_id_of(raw, "target connection"),
            name=read.text(raw, "name"),
            dataset_id=read.text(raw, "params", "dataSetId") or read.text(raw, "params", "datasetId"),
        )


def _id_of(raw: Any, what: str) -> str:
    identifier = read.text(raw, "id")
    if not identifier:
        raise UnreadableAnswerError(f"Flow Service answered with a {what} that has no id")
    return identifier
