# SPDX-License-Identifier: Apache-2.0
"""Verify that Airflow's discovery finds the provider, its parts and the connection form."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from importlib.metadata import entry_points
from importlib.resources import files
from importlib.util import find_spec

import pytest
from airflow_versions import VERSION
from pages import PAGES

from airflow_flowservice.get_provider_info import CONNECTION_FIELDS, get_provider_info

HOOK = "airflow_flowservice.hooks.FlowServiceHook"


@pytest.fixture(scope="module")
def manager():
    """Return Airflow's own discovery."""
    from airflow.providers_manager import ProvidersManager

    return ProvidersManager()


@pytest.fixture(scope="module")
def runtime():
    """Return the discovery of workers (Airflow 3.2 and later); otherwise Airflow's own discovery."""
    try:
        from airflow.sdk.providers_manager_runtime import ProvidersManagerTaskRuntime
    except ImportError:
        from airflow.providers_manager import ProvidersManager

        return ProvidersManager()
    return ProvidersManagerTaskRuntime()


def test_provider_info_matches_the_schema():
    """The provider info is valid by the schema of Airflow."""
    import jsonschema

    schema = json.loads(files("airflow").joinpath("provider_info.schema.json").read_text())
    assert [] == list(jsonschema.Draft202012Validator(schema).iter_errors(get_provider_info()))


def test_how_to_guides_exist():
    """The provider info names pages of the repository."""
    pages = [page for each in get_provider_info()["integrations"] for page in each["how-to-guide"]]
    assert [] != pages
    assert [] == [page for page in pages if page.removeprefix("/") not in PAGES]


@pytest.mark.needs_airflow(3, 1, "the page")
def test_logo_is_a_file_that_airflow_serves():
    """The logo is a path on the API server, which serves the plugin's static files there."""
    from airflow_flowservice.plugins.plugin import FlowServicePlugin

    (app,) = FlowServicePlugin.fastapi_apps
    (logo,) = [each["logo"] for each in get_provider_info()["integrations"]]
    assert logo.startswith(f"{app['url_prefix']}/static/")
    assert files("airflow_flowservice.plugins").joinpath(logo.removeprefix(f"{app['url_prefix']}/")).is_file()


def test_provider_info_is_new_json_each_time():
    """A caller that changes the result does not affect other callers."""
    first = get_provider_info()
    first["operators"].clear()
    assert get_provider_info() == json.loads(json.dumps(get_provider_info()))
    assert [] != get_provider_info()["operators"]


def test_entry_point():
    """Airflow reads the group `apache_airflow_provider`."""
    found = [
        point
        for point in entry_points(group="apache_airflow_provider")
        if point.value == "airflow_flowservice.get_provider_info:get_provider_info"
    ]
    assert get_provider_info() == found[0].load()()


@pytest.mark.parametrize("kind", ["operators", "sensors", "hooks", "triggers"])
def test_all_named_modules_import(kind):
    modules = [module for entry in get_provider_info()[kind] for module in entry["python-modules"]]
    more = {"sensors": ["airflow_flowservice.freshness"], "triggers": ["airflow_flowservice.freshness_trigger"]}
    expected = [f"airflow_flowservice.{kind}", *more.get(kind, [])]
    assert expected == [importlib.import_module(module).__name__ for module in modules]


def test_all_named_classes_import():
    info = get_provider_info()
    named = [info["connection-types"][0]["hook-class-name"], *info["extra-links"]]
    found = [getattr(importlib.import_module(name.rpartition(".")[0]), name.rpartition(".")[2]) for name in named]
    assert ["FlowServiceHook", "FlowRunLink", "DataflowLink"] == [cls.__name__ for cls in found]


def test_hook_and_form_agree():
    """Hook and provider info have the same connection type, name and id argument."""
    from airflow_flowservice.hooks import FlowServiceHook

    [declared] = get_provider_info()["connection-types"]
    assert (declared["connection-type"], declared["hook-name"], "flowservice_conn_id", "flowservice_default") == (
        FlowServiceHook.conn_type,
        FlowServiceHook.hook_name,
        FlowServiceHook.conn_name_attr,
        FlowServiceHook.default_conn_name,
    )


def test_airflow_finds_the_provider(manager):
    """The provider has the name and version of its distribution."""
    from importlib.metadata import version

    assert version("airflow-flowservice") == manager.providers["airflow-flowservice"].version


def test_airflow_finds_the_hook(runtime):
    """The connection type refers to `FlowServiceHook`."""
    hook = runtime.hooks["flowservice"]
    assert ("airflow_flowservice.hooks.FlowServiceHook", "flowservice_conn_id", "Adobe Flow Service") == (
        hook.hook_class_name,
        hook.connection_id_attribute_name,
        hook.hook_name,
    )


@pytest.mark.parametrize("link", ["FlowRunLink", "DataflowLink"])
def test_airflow_finds_the_extra_links(manager, link):
    """The extra links need no plugin."""
    assert f"airflow_flowservice.links.{link}" in manager.extra_links_class_names


@pytest.mark.parametrize(
    ("registry", "function"),
    [
        ("asset_uri_handlers", "sanitize_uri"),
        ("asset_factories", "flow_asset"),
        ("asset_to_openlineage_converters", "convert_asset_to_openlineage"),
    ],
)
def test_airflow_finds_the_asset_scheme(runtime, registry, function):
    """Airflow finds the functions that check a URI, create an asset, and convert it for OpenLineage."""
    from airflow_flowservice import assets

    assert getattr(assets, function) is getattr(runtime, registry)[assets.SCHEME]


needs_a_form = pytest.mark.skipif(
    VERSION < (3, 2) and find_spec("flask_appbuilder") is None,
    reason="before Airflow 3.2 it does not load the form of a hook unless flask_appbuilder is installed",
)


_FORM = """
from airflow.api_fastapi.core_api.services.ui.connections import HookMetaService
[found] = [meta for meta in HookMetaService.hook_meta_data() if meta.connection_type == "flowservice"]
print()
print(found.model_dump_json())
"""


@pytest.fixture(scope="module")
def form():
    """Return the connection form that the UI receives, from a process that has not loaded other hooks before."""
    done = subprocess.run([sys.executable, "-c", _FORM], capture_output=True, text=True, timeout=120)
    assert 0 == done.returncode, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@needs_a_form
def test_form_fields(form):
    """Each extra of the connection has a field, in this order."""
    expected = [
        "org_id",
        "sandbox",
        "scopes",
        "ims_url",
        "access_token",
        "epoch_format",
        "timeout_s",
        "max_attempts",
        "ledger_conn_id",
    ]
    assert expected == list(CONNECTION_FIELDS)
    assert set(expected) == set(form["extra_fields"])


@needs_a_form
def test_form_labels_and_placeholders(form):
    """Airflow's fields have Adobe's labels; unused fields are hidden."""
    shown = {
        name: (field["title"], field["placeholder"], bool(field["hidden"]))
        for name, field in form["standard_fields"].items()
        if field is not None
    }
    assert ("Client ID", "Client ID (API key) of an OAuth server-to-server credential", False) == shown["login"]
    assert ("Client secret", "Client secret of the same credential", False) == shown["password"]
    assert ("Platform URL", "https://platform.adobe.io", False) == shown["host"]
    assert (True, True) == (shown["port"][2], shown["url_schema"][2])


def test_every_field_has_label_and_description():
    assert [] == [name for name, field in CONNECTION_FIELDS.items() if not (field["label"] and field["description"])]


def test_secrets_are_password_fields():
    """A ready token is not shown while it is typed."""
    assert {"access_token"} == {
        name for name, field in CONNECTION_FIELDS.items() if field["schema"].get("format") == "password"
    }


def test_only_the_organization_is_required():
    """All other fields have a default, so the form accepts an empty field."""
    required = {name for name, field in CONNECTION_FIELDS.items() if "null" not in field["schema"]["type"]}
    assert {"org_id"} == required


def test_form_behaviour_before_airflow_3_2():
    """Older versions of Airflow read the behaviour from the hook."""
    from airflow_flowservice.hooks import FlowServiceHook

    behaviour = FlowServiceHook.get_ui_field_behaviour()
    assert {"hidden_fields", "relabeling", "placeholders"} == set(behaviour)
    assert "Client ID" == behaviour["relabeling"]["login"]


@pytest.mark.slow
def test_airflow_command_lists_the_provider(airflow_home):
    """`airflow providers list` has the provider; older versions log before the list."""
    command = [sys.executable, "-m", "airflow", "providers", "list", "--output", "json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    listed = {entry["package_name"]: entry for entry in json.loads(done.stdout[done.stdout.index("[{") :])}
    assert "On-demand ingestion in Adobe Experience Platform" in listed["airflow-flowservice"]["description"]
