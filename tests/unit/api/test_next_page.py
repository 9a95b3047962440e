# SPDX-License-Identifier: Apache-2.0
"""Links to the next page of a list, in expected and unexpected forms."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_flowservice.api.http_session import HttpResponse
from airflow_flowservice.api.responses import Call, parse_page
from airflow_flowservice.exceptions import UnreadableAnswerError


def page_of(body: dict[str, Any]) -> Any:
    headers = {"content-type": "application/json", "x-request-id": "request-1"}
    return parse_page(HttpResponse(status=200, body=json.dumps(body).encode(), headers=headers), Call.LIST_RUNS)


@pytest.mark.parametrize(
    "links", [None, {}, [], "", {"next": None}, {"next": {}}, {"next": ""}, {"next": {"href": None}}], ids=str
)
def test_list_without_a_link_is_complete(links):
    """Adobe sends `_links` without `next` on the last page; null and empty values mean the same."""
    assert None is page_of({"items": [{"id": "a"}], "_links": links}).continuation


@pytest.mark.parametrize("link", [{"href": "/runs?continuationToken=abc"}, "/runs?continuationToken=abc"], ids=str)
def test_link_to_the_next_page(link):
    assert "abc" == page_of({"items": [{"id": "a"}], "_links": {"next": link}}).continuation


def test_link_with_half_an_emoji():
    """A token that is no text of UTF-8 is sent with a replacement; it is no error of another class."""
    page = page_of({"items": [{"id": "a"}], "_links": {"next": {"href": "/runs?continuationToken=a\ud83db"}}})

    assert "a%3Fb" == page.continuation


@pytest.mark.parametrize(
    "links",
    [
        {"next": {"href": ["/runs?continuationToken=abc"]}},
        {"next": {"href": {"url": "/runs?continuationToken=abc"}}},
        {"next": [{"href": "/runs?continuationToken=abc"}]},
        {"next": {"href": 7}},
        {"next": True},
        [{"rel": "next", "href": "/runs?continuationToken=abc"}],
        "/runs?page=2",
        {"next": {"href": "/runs?start=2"}},
    ],
    ids=str,
)
def test_unreadable_link_is_no_last_page(links):
    """If the list were accepted as complete, the search for a lost flow run could miss it, and create a second one."""
    with pytest.raises(UnreadableAnswerError, match="the link to the next page has no continuationToken") as caught:
        page_of({"items": [{"id": "a"}], "_links": links})
    assert (200, "request-1") == (caught.value.http_status, caught.value.request_id)
