# SPDX-License-Identifier: Apache-2.0
"""Registration of the plugin, and the cost of its import for each Airflow process."""

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
ALREADY_IMPORTED = """
import asyncio
try:
    import airflow.sdk.plugins_manager
except ImportError:
    import airflow.plugins_manager
"""


def run_python(code: str, **environment: str) -> Any:
    """Run code in a new Python process; return the JSON in the last line of its output."""
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


@pytest.mark.slow
def test_plugin_imports_only_its_own_modules() -> None:
    """Every Airflow process imports the plugin, also tasks. The first request imports the page's application."""
    code = f"{ALREADY_IMPORTED}\nimport sys, json\nbefore = set(sys.modules)\nimport {MODULE}\n"
    added = run_python(f"{code}print(json.dumps(sorted(set(sys.modules) - before)))")
    assert {"airflow_flowservice.plugins", MODULE} == set(added) - {"airflow_flowservice"}


def test_only_the_entry_point_registers_the_plugin() -> None:
    """If the provider info also listed the plugin, Airflow would report a duplicate registration."""
    found = [point.value for point in entry_points(group="airflow.plugins") if point.name == "flowservice"]
    assert [f"{MODULE}:FlowServicePlugin"] == found
    assert "plugins" not in get_provider_info()


def test_airflow_lists_two_views_and_no_import_error(viewer: Any, as_user: Any) -> None:
    """The REST API that the UI uses lists a view for the menu and a view for each DAG's page."""
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
    return dict(run_python(code))


@pytest.mark.parametrize(("base_url", "expected"), ADDRESSES.items())
def test_href_has_the_path_of_the_base_url(
    views_of: dict[str, list[dict[str, str]]], base_url: str, expected: str
) -> None:
    """The path ends with a slash; without it, the UI would show itself inside the frame."""
    assert [expected, f"{expected}?dag_id={{DAG_ID}}"] == [view["href"] for view in views_of[base_url]]


@pytest.mark.slow
def test_airflow_without_external_views_gets_no_page() -> None:
    """On Airflow 3.0 the plugin mounts nothing and logs nothing."""
    code = f"""{ALREADY_IMPORTED}
import sys, json
for name in ("airflow.sdk.plugins_manager", "airflow.plugins_manager"):
    manager = sys.modules.get(name)
    if manager and hasattr(manager.AirflowPlugin, "external_views"):
        del manager.AirflowPlugin.external_views
from {MODULE} import FlowServicePlugin as plugin
print(json.dumps([plugin.external_views, plugin.fastapi_apps]))"""
    assert [[], []] == run_python(code)
