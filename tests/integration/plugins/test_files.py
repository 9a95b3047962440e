# SPDX-License-Identifier: Apache-2.0
"""Static files of the page: content types, headers, and no code that parses HTML."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import airflow_flowservice.plugins

STATIC = Path(airflow_flowservice.plugins.__file__).parent / "static"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/flowservice/", "text/html"),
        ("/flowservice/static/main.js", "javascript"),
        ("/flowservice/static/page.css", "text/css"),
        ("/flowservice/static/icon.svg", "image/svg+xml"),
    ],
)
def test_files_are_served_with_content_types(as_user: Callable[..., Any], path: str, kind: str) -> None:
    """Static files need no login. A browser runs a module only if its content type is correct."""
    response = as_user().get(path)
    assert 200 == response.status_code
    assert kind in response.headers["content-type"]
    assert "no-cache" == response.headers["cache-control"]


@pytest.mark.parametrize("path", ["", "static/main.js", "static/none.js", "data/dataflows", "data/coverage", "none"])
def test_each_response_has_security_headers(as_user: Callable[..., Any], viewer: Any, path: str) -> None:
    for client in (as_user(), viewer):
        response = client.get(f"/flowservice/{path}")
        assert POLICY == response.headers["content-security-policy"]
        assert "nosniff" == response.headers["x-content-type-options"]
        assert ("no-store" if "data/" in path else "no-cache") == response.headers["cache-control"]


def test_files_outside_the_folder_are_not_served(as_user: Callable[..., Any]) -> None:
    for path in ("static/../page_app.py", "static/%2e%2e/page_app.py", "static/..%2fpage_app.py"):
        assert 404 == as_user().get(f"/flowservice/{path}").status_code


@pytest.mark.parametrize("file", sorted(STATIC.iterdir()), ids=lambda file: file.name)
def test_no_html_parsing_and_no_inline_code(file: Path) -> None:
    """External text never becomes a script, and no file loads resources from another site."""
    text = file.read_text()
    assert [] == re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|\beval\(", text)
    if file.suffix == ".html":
        assert [] == re.findall(r"<script>|\sstyle=|<style|\son\w+=|https?://", text)
    if file.suffix == ".css":
        assert [] == re.findall(r"@import|url\(", text)


def test_all_files_are_referenced() -> None:
    """No file is unused, and no referenced file is missing."""
    files = {file.name for file in STATIC.iterdir()}
    texts = {file.name: file.read_text() for file in STATIC.iterdir()}
    plugin = (STATIC.parent / "plugin.py").read_text() + (STATIC.parent / "page_app.py").read_text()
    referenced = {
        name for name in files if name in plugin or any(name in text for other, text in texts.items() if other != name)
    }
    required = {
        name for text in texts.values() for name in re.findall(r"[\"']\./(\w+\.js)[\"']|static/([\w-]+\.\w+)", text)
    }
    assert files == referenced
    assert {first or second for first, second in required} <= files
