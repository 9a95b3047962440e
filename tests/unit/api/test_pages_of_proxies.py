# SPDX-License-Identifier: Apache-2.0
"""Pages of proxies and firewalls instead of responses of Flow Service, and oversized tokens."""

from __future__ import annotations

import json

import pytest

from airflow_flowservice.api.auth import parse_token
from airflow_flowservice.api.http_session import HttpResponse
from airflow_flowservice.api.responses import Call, raise_for_status
from airflow_flowservice.exceptions import ApiError, UnreadableAnswerError


@pytest.mark.parametrize("status", [400, 401, 403, 405, 413])
@pytest.mark.parametrize("call", [Call.CREATE_RUN, Call.GET_RUN, Call.LIST_RUNS, Call.GET_FLOW])
def test_page_of_a_proxy_names_the_proxy(status, call):
    """The remedy is not a permission or a credential, which Flow Service did not check."""
    headers = {"content-type": "text/html", "x-request-id": "request-1"}
    response = HttpResponse(status=status, body=b"<html>Access denied by policy</html>", headers=headers)
    with pytest.raises(ApiError) as caught:
        raise_for_status(response, call)
    error = caught.value
    assert (status, "request-1") == (error.http_status, error.request_id)
    assert "Access denied by policy" in error.message
    assert "check the proxy or the firewall between Airflow and Adobe" in error.remedy


@pytest.mark.parametrize(("length", "accepted"), [(16_384, True), (16_385, False), (2**20, False)])
def test_length_of_a_token(length, accepted):
    """Airflow masks a token in all logs, and each request contains it."""
    response = HttpResponse(status=200, body=json.dumps({"access_token": "x" * length}).encode())
    if accepted:
        assert "x" * length == parse_token(response, now=0.0, client_id="client", host="ims").value
        return
    with pytest.raises(UnreadableAnswerError) as caught:
        parse_token(response, now=0.0, client_id="client", host="ims")
    assert "x" * 50 not in str(caught.value)
