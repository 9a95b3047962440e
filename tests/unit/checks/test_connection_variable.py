# SPDX-License-Identifier: Apache-2.0
"""Verify that a connection in an environment variable that Airflow cannot parse is reported with its cause."""

from __future__ import annotations

import json

import pytest

from airflow_flowservice.checks.connection_variable import cause_of

GOOD = {"conn_type": "flowservice", "login": "client", "password": "q9x7cret", "extra": {"org_id": "ORG@AdobeOrg"}}

UNREADABLE = {
    "trailing comma": ('{"conn_type": "flowservice", "password": "q9x7cret",}', "is not valid JSON: "),
    "org_id beside extra": (json.dumps({**GOOD, "org_id": "x"}), "has the unknown key 'org_id' beside 'extra'"),
    "conn_id": (json.dumps({**GOOD, "conn_id": "x"}), "has the unknown key 'conn_id' beside 'extra'"),
    "unquoted ims_url": (
        "flowservice://client:q9x7cret@platform.adobe.io/?org_id=x&ims_url=https://ims-na1.adobelogin.com",
        "has a '://' that is not quoted",
    ),
    "unquoted host": ("flowservice://client:q9x7cret@https://platform.adobe.io", "has a '://' that is not quoted"),
    "three schemes": ("flowservice://https://a/?b=https://c", "has a '://' that is not quoted"),
    "slash in the secret": ("flowservice://client:q9x7/cret@platform.adobe.io", "has a port that is not a number"),
    "port of a URI": ("flowservice://client:q9x7cret@platform.adobe.io:port", "has a port that is not a number"),
    "IPv6": ("flowservice://client:q9x7cret@[::1", "is not a valid URI"),
    "port": (json.dumps({**GOOD, "port": "https"}), "has a port that is not a number"),
    "number as login": (json.dumps({**GOOD, "login": 5}), "has a login that is not text"),
    "extra is a list": (json.dumps({**GOOD, "extra": [1]}), "the extra is a JSON array, not a JSON object"),
    "extra is text": (json.dumps({**GOOD, "extra": "org_id=q9x7"}), "the extra is not valid JSON"),
    "extra encoded twice": (
        json.dumps({**GOOD, "extra": json.dumps(json.dumps(GOOD["extra"]))}),
        "the extra was encoded twice",
    ),
    "quotation marks": (f"'{json.dumps(GOOD)}'", "begins with a quotation mark"),
    "blank": (" ", "is empty"),
}


@pytest.mark.parametrize(("value", "cause"), UNREADABLE.values(), ids=UNREADABLE)
def test_cause(value, cause):
    """The cause contains nothing of the secret."""
    found = cause_of(value)
    assert cause in found
    assert "q9x7" not in found


@pytest.mark.parametrize(
    "value",
    [
        json.dumps(GOOD),
        json.dumps({**GOOD, "extra": json.dumps(GOOD["extra"])}),
        json.dumps({**GOOD, "host": "https://platform.adobe.io", "port": "443", "description": None}),
        "flowservice://client:s@platform.adobe.io/?org_id=ORG%40AdobeOrg",
        "flowservice://https://client:s@platform.adobe.io:443/?org_id=x",
    ],
)
def test_no_cause(value):
    """A value that Airflow can parse has no known cause."""
    assert cause_of(value) is None
    from airflow.models.connection import Connection

    if value.startswith("{"):
        assert "flowservice" == Connection.from_json(value, conn_id="x").conn_type
    elif "https://client" not in value:
        assert "flowservice" == Connection(conn_id="x", uri=value).conn_type
