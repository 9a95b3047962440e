# SPDX-License-Identifier: Apache-2.0
"""Source connection and target connection of a dataflow, and the test of a base connection.

Parsing is lenient, as in `models`; `params` depend on the connector, and Adobe documents only some of them.
Source: https://developer.adobe.com/experience-platform-apis/references/flow-service/
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from airflow_flowservice.api.json_values import objects_at, required_id, text_at, value_at
from airflow_flowservice.plain_text import ID_LENGTH

_MESSAGES = ("message", "errorMessage", "errorDetails", "reason")


@dataclass(frozen=True, kw_only=True)
class SourceConnection:
    """Source connection, from `GET /sourceConnections/{id}`.

    :param base_connection_id: connection with the credential, which several source connections can share.
    :param connection_spec_id: id of the connector's specification.
    :param data: table (`params.tableName`), or path of files (`params.path`).
    """

    id: str
    name: str | None = None
    base_connection_id: str | None = None
    connection_spec_id: str | None = None
    data: str | None = None

    @classmethod
    def parse(cls, raw: Any) -> SourceConnection:
        """Parse the JSON object.

        :raises UnreadableAnswerError: the value is not an object, or has no id.
        """
        return cls(
            id=required_id(raw, "source connection"),
            name=text_at(raw, "name"),
            base_connection_id=text_at(raw, "baseConnectionId", length=ID_LENGTH),
            connection_spec_id=text_at(raw, "connectionSpec", "id", length=ID_LENGTH)
            or text_at(raw, "connectionSpec", length=ID_LENGTH),
            data=text_at(raw, "params", "tableName") or text_at(raw, "params", "path"),
        )


@dataclass(frozen=True, kw_only=True)
class ConnectionTest:
    """Result of `GET /connections/{id}/test`, in which Adobe connects to the source with the stored credential.

    :param result: None if the response has no result.
    :param message: text of the response, if it has one.
    """

    result: bool | None = None
    message: str | None = None

    @classmethod
    def parse(cls, raw: Any) -> ConnectionTest:
        """Parse `{"items": [{"result": true}]}` or `{"result": true}`; of several results, a failure decides."""
        items = list(objects_at({"items": raw} if isinstance(raw, list) else raw, "items"))
        results = [item for item in items or [raw] if isinstance(value_at(item, "result"), bool)]
        item = min(results, key=lambda each: bool(value_at(each, "result")), default=next(iter(items), raw))
        result = value_at(item, "result")
        parts = (item, *objects_at(item, "errors"))
        texts = (text_at(part, name) for part in parts for name in _MESSAGES)
        return cls(result=result if isinstance(result, bool) else None, message=next(filter(None, texts), None))


@dataclass(frozen=True, kw_only=True)
class TargetConnection:
    """Target connection, from `GET /targetConnections/{id}`.

    :param dataset_id: dataset in the data lake that the dataflow writes to.
    """

    id: str
    name: str | None = None
    dataset_id: str | None = None

    @classmethod
    def parse(cls, raw: Any) -> TargetConnection:
        """Parse the JSON object.

        :raises UnreadableAnswerError: the value is not an object, or has no id.
        """
        return cls(
            id=required_id(raw, "target connection"),
            name=text_at(raw, "name"),
            dataset_id=text_at(raw, "params", "dataSetId", length=ID_LENGTH)
            or text_at(raw, "params", "datasetId", length=ID_LENGTH),
        )
