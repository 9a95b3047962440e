# SPDX-License-Identifier: Apache-2.0
"""Links, lines and rows of error diagnostics: bounded, of the connection's host only, and never in a `repr`."""

from __future__ import annotations

import json

import pytest

from airflow_flowservice.api import failed_records
from airflow_flowservice.api.failed_records import lines_of, own_path, parse_row
from airflow_flowservice.cli.failed_records_report import EXAMPLE_LENGTH, MAX_CODES, NO_CODE, RowCounts
from airflow_flowservice.exceptions import UnreadableAnswerError

PLATFORM = "https://platform.adobe.io"
LIST = "/data/foundation/export/batches/B1/meta?path=row_errors"
TOKEN = "a-token-of-this-test"


@pytest.mark.parametrize(
    ("base_url", "href"),
    [
        (PLATFORM, f"{PLATFORM}{LIST}"),
        (PLATFORM, f"{PLATFORM}:443{LIST}"),
        (PLATFORM, f"https://PLATFORM.adobe.io{LIST}"),
        (f"{PLATFORM}:443", f"{PLATFORM}{LIST}"),
        (PLATFORM, LIST),
        (f"{PLATFORM}/gateway", f"{PLATFORM}/gateway{LIST}"),
        (f"{PLATFORM}/gateway", f"{PLATFORM}{LIST}"),
        ("http://127.0.0.1:8710", f"http://127.0.0.1:8710{LIST}"),
    ],
)
def test_link_to_the_own_host_is_followed(base_url, href):
    assert "/batches/B1/meta?path=row_errors" == own_path(href, base_url=base_url)


@pytest.mark.parametrize(
    "href",
    [
        f"https://evil.example{LIST}",
        f"https://platform.adobe.io.evil.example{LIST}",
        f"https://platform-int.adobe.io{LIST}",
        f"https://platform.adobe.io@evil.example{LIST}",
        f"https://user@platform.adobe.io{LIST}",
        f"//evil.example{LIST}",
        f"\\\\evil.example{LIST}",
        f"https:\\\\evil.example{LIST}",
        f"http://platform.adobe.io{LIST}",
        f"https://platform.adobe.io:8443{LIST}",
        f"https://platform.adobe.io:port{LIST}",
        f"ftp://platform.adobe.io{LIST}",
        f"https://[::1{LIST}",
        f"https://platform.adobe.io{LIST}\r\nHost: evil.example",
    ],
)
def test_link_to_another_host_is_an_error(href):
    """The access token would be sent to that host."""
    with pytest.raises(UnreadableAnswerError, match="link to another host") as caught:
        own_path(href, base_url=PLATFORM)
    assert "check the connection's host" in caught.value.remedy


@pytest.mark.parametrize(
    "href",
    [
        "",
        f"{PLATFORM}/data/foundation/flowservice/runs",
        f"{PLATFORM}/data/foundation/export/batches/",
        f"{PLATFORM}/data/foundation/export/batches/B1/../../../flowservice/runs",
        f"{PLATFORM}/data/foundation/export/batches/B1/%2e%2e/%2E%2E/files",
        f"{PLATFORM}/elsewhere{LIST}",
    ],
)
def test_link_to_another_api_is_an_error(href):
    with pytest.raises(UnreadableAnswerError, match="not one of the Data Access API"):
        own_path(href, base_url=PLATFORM)


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_lines_do_not_depend_on_pieces(size):
    """Lines may end with CRLF, and the last one without an end."""
    body = b'{"a": 1}\r\n\n  \n{"b": "long"}\n{"c": 3}'
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    assert [b'{"a": 1}', b'{"b": "long"}', b'{"c": 3}'] == list(lines_of(pieces))


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_long_line_is_omitted(size, monkeypatch):
    """A line over the limit is not kept in memory, and the next one is read."""
    monkeypatch.setattr(failed_records, "MAX_LINE_BYTES", 10)
    body = b"0123456789\n0123456789A\nshort\n" + b"x" * 50
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    assert [b"0123456789", None, b"short", None] == list(lines_of(pieces))


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ([{"code": "A", "message": "no"}], [("A", "no")]),
        ([{"code": "A"}, {"message": "no"}, "text", {}], [("A", "no message"), (None, "no")]),
        ({"code": 1400, "message": "no"}, [("1400", "no")]),
        ({"_streamingValidation": [{"message": "bad month"}]}, [(None, "bad month")]),
        (None, []),
        ("text", []),
        ([{"code": "A", "message": "no"}] * 50, [("A", "no")] * 20),
    ],
)
def test_errors_of_a_row(errors, expected):
    row = parse_row(json.dumps({"id": 1, "_errors": errors}).encode())
    assert expected == [(error.code, error.message) for error in row.errors]


@pytest.mark.parametrize("line", [b"text", b"[1]", b"null", b"{", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 100_000])
def test_line_without_an_object_is_no_row(line):
    assert parse_row(line) is None


def test_repr_of_a_row_has_no_values():
    """An accidental log message therefore has no personal data."""
    row = parse_row(b'{"email": "ann@example.org", "_errors": [{"code": "A", "message": "no"}]}')
    assert "ann" not in f"{row!r} {row}"


def test_returned_token_is_removed():
    row = parse_row(json.dumps({"echo": f"Bearer {TOKEN}"}).encode(), secrets=(TOKEN,))
    assert TOKEN not in row.line.decode()
    assert {"echo": "Bearer ***"} == row.values == json.loads(row.line)


def test_codes_are_counted_in_bounded_memory():
    """Each row counts one time for each of its codes; codes over the limit are counted together."""
    counts = RowCounts()
    for number in range(MAX_CODES + 5):
        errors = [{"code": f"CODE-{number}", "message": "no"}, {"code": "ALL", "message": "m"}] * 2
        counts.add(parse_row(json.dumps({"text": "x" * 5000, "_errors": errors}).encode()))
    counts.add(parse_row(b"{}"))
    counts.add(None)
    assert (MAX_CODES + 6, 1, MAX_CODES) == (counts.rows, counts.unreadable, len(counts.codes))
    assert ("ALL", MAX_CODES + 5) == (counts.by_count()[0].code, counts.by_count()[0].rows)
    assert 7 == counts.other
    assert {EXAMPLE_LENGTH} == {len(each.example) for each in counts.codes.values()}


def test_row_without_a_code():
    counts = RowCounts()
    counts.add(parse_row(b'{"a": "\\u001b[31m"}'))
    assert [(NO_CODE, 1, "no message")] == [(each.code, each.rows, each.message) for each in counts.by_count()]
    assert "\x1b" not in counts.by_count()[0].example
