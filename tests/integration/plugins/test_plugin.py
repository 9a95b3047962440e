"""What Airflow finds, and what it costs all the processes that look."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import entry_points
from typing import Any

import pytest

from airflow_flowservice.get_provider_info import get_provider_info

MODULE = "airflow_flowservice.plugins.plugin"
THERE_ALREADY = """
import asyncio
try:
    import airflow.sdk.plugins_manager
except ImportError:
    import airflow.plugins_manager
"""


def run(code: str, **environment: str) -> Any:
    """What a new Python prints as JSON at its end."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert 0 == done.returncode, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_the_plugin_imports_next_to_nothing() -> None:
    """Every Airflow process imports it, tasks too; the page's application waits for its first request."""
    code = f"{THERE_ALREADY}\nimport sys, json\nbefore = set(sys.modules)\nimport {MODULE}\n"
    added = run(f"{code}print(json.dumps(sorted(set(sys.modules) - before)))")
    assert {"airflow_flowservice.plugins", MODULE} == set(added) - {"airflow_flowservice"}


def test_the_entry_point_leads_to_it_and_the_provider_does_not() -> None:
    """Airflow reports a plugin that it finds in both places as registered twice."""
    found = [point.value for point in entry_points(group="airflow.plugins") if point.name == "flowservice"]
    assert [f"{MODULE}:FlowServicePlugin"] == found
    assert "plugins" not in get_provider_info()


def test_airflow_shows_two_views_and_no_error(viewer: Any, as_user: Any) -> None:
    """In the menu, and on each DAG's page with its id; as the UI asks for them."""
    plugins = viewer.get("/api/v2/plugins").json()["plugins"]
    (plugin,) = [each for each in plugins if each["name"] == "flowservice"]
    views = {view["destination"]: (view["href"], view["url_route"]) for view in plugin["external_views"]}
    assert ("/flowservice/", "flowservice") == views["nav"]
    assert ("/flowservice/?dag_id={DAG_ID}", "flowservice-dag") == views["dag"]
    assert 0 == as_user("admin").get("/api/v2/plugins/importErrors").json()["total_entries"]


ADDRESSES = {
    "http://127.0.0.1:8080": "/flowservice/",
    "https://example.org/airflow": "/airflow/flowservice/",
    "https://example.org/deep/er/": "/deep/er/flowservice/",
    "/": "/flowservice/",
}


@pytest.fixture(scope="module")
def views_of() -> dict[str, list[dict[str, str]]]:
    """Return the plugin's views for each address of Airflow; one process imports the plugin for each of them."""
    code = f"""
import importlib, json, os
import {MODULE} as plugin
found = {{}}
for address in {list(ADDRESSES)}:
    os.environ["AIRFLOW__API__BASE_URL"] = address
    found[address] = importlib.reload(plugin).FlowServicePlugin.external_views
print(json.dumps(found))"""
    return dict(run(code))


@pytest.mark.parametrize(("base_url", "expected"), ADDRESSES.items())
def test_the_address_has_the_prefix_of_airflows_own(
    views_of: dict[str, list[dict[str, str]]], base_url: str, expected: str
) -> None:
    """And ends with a slash, without which the UI shows itself inside itself."""
    assert [expected, f"{expected}?dag_id={{DAG_ID}}"] == [view["href"] for view in views_of[base_url]]


def test_airflow_without_pages_gets_none() -> None:
    """On 3.0 nothing is mounted, and nothing is said."""
    code = f"""{THERE_ALREADY}
import sys, json
for name in ("airflow.sdk.plugins_manager", "airflow.plugins_manager"):
    manager = sys.modules.get(name)
    if manager and hasattr(manager.AirflowPlugin, "external_views"):
        del manager.AirflowPlugin.external_views
from {MODULE} import FlowServicePlugin as it
print(json.dumps([it.external_views, it.fastapi_apps]))"""
    assert [[], []] == run(code)
