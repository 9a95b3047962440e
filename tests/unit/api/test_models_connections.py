# SPDX-License-Identifier: Apache-2.0
"""Verify that connections and their tests are parsed leniently, because `params` depend on the connector."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_flowservice.api.models import ConnectionTest, SourceConnection, TargetConnection
from airflow_flowservice.exceptions import UnreadableAnswerError


@pytest.mark.parametrize(
    ("params", "data"),
    [
        ({"tableName": "ACME.ORDERS", "columns": []}, "ACME.ORDERS"),
        ({"path": "/acme/orders", "type": "folder"}, "/acme/orders"),
        ({"tableName": "ORDERS", "path": "ACME/ORDERS"}, "ORDERS"),
        ({"path": "Accounts"}, "Accounts"),
        ({"path": ""}, None),
        ({"path": {"a": 1}}, None),
        ({"columnDelimiter": ","}, None),
        ([], None),
        (None, None),
    ],
    ids=str,
)
def test_source_data(params, data):
    """A table takes precedence over a path; an unexpected value is None."""
    assert data == SourceConnection.parse({"id": "s", "params": params}).data


def test_source_connection():
    """The object is that of Adobe's OpenAPI file."""
    raw = {
        "id": "s",
        "name": "Google Cloud Storage source connection",
        "baseConnectionId": "69f188b6-af07-4587-8061-e94d34637b41",
        "connectionSpec": {"id": "32e8f412-cdf7-464c-9885-78184cb113fd", "version": "1.0"},
        "params": {"path": "Accounts"},
    }
    expected = SourceConnection(
        id="s",
        name="Google Cloud Storage source connection",
        base_connection_id="69f188b6-af07-4587-8061-e94d34637b41",
        connection_spec_id="32e8f412-cdf7-464c-9885-78184cb113fd",
        data="Accounts",
    )
    assert expected == SourceConnection.parse(raw)


@pytest.mark.parametrize(
    ("params", "dataset"),
    [({"dataSetId": "5ed18e0f4f90b719196f44a9"}, "5ed18e0f4f90b719196f44a9"), ({"datasetId": "d"}, "d"), ({}, None)],
    ids=str,
)
def test_dataset_of_target(params, dataset):
    """Adobe writes `dataSetId`."""
    assert dataset == TargetConnection.parse({"id": "t", "params": params}).dataset_id


@pytest.mark.parametrize("parse", [SourceConnection.parse, TargetConnection.parse])
@pytest.mark.parametrize("raw", [{}, {"id": ""}, [], None, "text"], ids=repr)
def test_only_an_object_without_an_id_is_refused(parse, raw):
    with pytest.raises(UnreadableAnswerError, match="has no id"):
        parse(raw)


@pytest.mark.parametrize(
    ("raw", "result"),
    [
        ({"items": [{"result": True}]}, True),
        ({"items": [{"result": False}]}, False),
        ({"result": True}, True),
        ({"result": False}, False),
        *((raw, None) for raw in ({}, {"items": []}, {"result": "true"}, None, [])),
    ],
)
def test_result_of_a_connection_test(raw: Any, result: bool | None) -> None:
    assert result is ConnectionTest.parse(raw).result


@pytest.mark.parametrize(
    "raw",
    [
        {"items": [{"result": True}, {"result": False, "message": "expired"}]},
        [{"result": True}, {"result": False, "errorMessage": "expired"}],
        {"result": False, "errors": [{"code": "C-1", "message": "expired"}]},
    ],
    ids=["items", "list", "errors"],
)
def test_a_connection_test_with_a_failure_has_failed(raw: Any) -> None:
    assert ConnectionTest(result=False, message="expired") == ConnectionTest.parse(raw)
