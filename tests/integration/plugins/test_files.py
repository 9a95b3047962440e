"""The page's files: served with the right types and headers, and with nothing in them that reads HTML."""

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
def test_files_are_served_with_their_types(as_user: Callable[..., Any], path: str, kind: str) -> None:
    """Without a login, since there is nothing in them; a browser runs a module only if its type is right."""
    answer = as_user().get(path)
    assert 200 == answer.status_code
    assert kind in answer.headers["content-type"]
    assert "no-cache" == answer.headers["cache-control"]


@pytest.mark.parametrize("path", ["", "static/main.js", "static/none.js", "data/dataflows", "data/coverage", "none"])
def test_each_answer_has_the_headers(as_user: Callable[..., Any], viewer: Any, path: str) -> None:
    """Whether it succeeds or not."""
    for client in (as_user(), viewer):
        answer = client.get(f"/flowservice/{path}")
        assert POLICY == answer.headers["content-security-policy"]
        assert "nosniff" == answer.headers["x-content-type-options"]
        assert ("no-store" if "data/" in path else "no-cache") == answer.headers["cache-control"]


def test_nothing_outside_the_folder_is_served(as_user: Callable[..., Any]) -> None:
    """However the path is written."""
    for path in ("static/../page_app.py", "static/%2e%2e/page_app.py", "static/..%2fpage_app.py"):
        assert 404 == as_user().get(f"/flowservice/{path}").status_code


@pytest.mark.parametrize("file", sorted(STATIC.iterdir()), ids=lambda file: file.name)
def test_nothing_reads_html_and_nothing_is_inline(file: Path) -> None:
    """Text that comes from outside can then never become a script; nor does anything come from another site."""
    text = file.read_text()
    assert [] == re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|\beval\(", text)
    if file.suffix == ".html":
        assert [] == re.findall(r"<script>|\sstyle=|<style|\son\w+=|https?://", text)
    if file.suffix == ".css":
        assert [] == re.findall(r"@import|url\(", text)


def test_all_files_are_named_by_another() -> None:
    """None is left over, none is missing."""
    files = {file.name for file in STATIC.iterdir()}
    texts = {file.name: file.read_text() for file in STATIC.iterdir()}
    plugin = (STATIC.parent / "plugin.py").read_text() + (STATIC.parent / "page_app.py").read_text()
    named = {name for name in files if name in plugin or any(name in text for at, text in texts.items() if at != name)}
    wanted = {
        name for text in texts.values() for name in re.findall(r"[\"']\./(\w+\.js)[\"']|static/([\w-]+\.\w+)", text)
    }
    assert files == named
    assert {first or second for first, second in wanted} <= files
