# SPDX-License-Identifier: Apache-2.0
"""Imports of DAG files must stay cheap, and public names are pinned."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys

import pytest

from airflow_flowservice._airflow import versions

HEAVY = (
    "requests",
    "urllib3",
    "fastapi",
    "uvicorn",
    "pendulum",
    "croniter",
    "sqlalchemy",
    "airflow.models",
    "airflow.triggers.base",
    "airflow_flowservice.api",
    "airflow_flowservice.windows",
    "airflow_flowservice.runs",
    "airflow_flowservice.coverage",
    "airflow_flowservice.checks",
    "airflow_flowservice.triggers",
    "airflow_flowservice.freshness_trigger",
    "airflow_flowservice.hooks",
    "airflow_flowservice.openlineage",
    "openlineage",
    "airflow_flowservice.emulator",
    "airflow_flowservice.demo",
)
# Hooks are in the SDK since 3.1.
HOOKS = "airflow.sdk" if versions.version() >= (3, 1) else "airflow.hooks.base"
SDK = f"from airflow.sdk import DAG, BaseOperator, BaseSensorOperator\nfrom {HOOKS} import BaseHook\n"
INTERFACE = {
    "airflow_flowservice.hooks": {"FlowServiceHook", "client_of"},
    "airflow_flowservice.operators": {"OnDemandFlowRunOperator", "RetriggerFlowRunOperator"},
    "airflow_flowservice.sensors": {"FlowRunSensor"},
    "airflow_flowservice.alerts": {"FlowRunAlert", "deadline_callback", "notify_missed_deadline"},
    "airflow_flowservice.freshness": {"FlowFreshnessSensor"},
    "airflow_flowservice.freshness_trigger": {"FlowFreshnessTrigger"},
    "airflow_flowservice.triggers": {"FlowRunTrigger"},
    "airflow_flowservice.watchers": {"FlowRunsTrigger"},
    "airflow_flowservice.links": {"DataflowLink", "FlowRunLink", "dataflow_page"},
    "airflow_flowservice.assets": {"convert_asset_to_openlineage", "flow_asset", "sanitize_uri", "short"},
    "airflow_flowservice.openlineage": {"Ends", "FlowRunFacet", "lineage_of"},
    "airflow_flowservice.get_provider_info": {"get_provider_info"},
    "airflow_flowservice.emulator": {"Emulator", "Settings", "running_emulator"},
    "airflow_flowservice.exceptions": {
        "AccessDeniedError",
        "ApiError",
        "AttemptOvertakenError",
        "AuthenticationError",
        "ConfigurationError",
        "CreateNotAllowedError",
        "DataConnectionNotFoundError",
        "DeltaColumnDiffersError",
        "DeltaColumnMissingError",
        "FlowChangingError",
        "FlowDisabledError",
        "FlowLateError",
        "FlowNameError",
        "FlowNotFoundError",
        "FlowNotReadyError",
        "FlowRunError",
        "FlowRunBatchFailedError",
        "FlowRunFailedError",
        "FlowRunTimeoutError",
        "FlowRunUncertainError",
        "FlowRunActiveError",
        "FlowRunEmptyError",
        "FlowRunIncompleteError",
        "FlowRunOutcomeUnknownError",
        "FlowRunVanishedError",
        "FlowServiceError",
        "LedgerConflictError",
        "LedgerError",
        "LedgerUnavailableError",
        "NoAnswerError",
        "NotOnDemandError",
        "NotSentError",
        "OrganizationError",
        "RateLimitedError",
        "RetriggerNotYetError",
        "RetriggerRefusedError",
        "BatchNotFoundError",
        "RunNotFoundError",
        "RunRefusedError",
        "SandboxError",
        "ServerError",
        "StartTimeInPastError",
        "UnreadableAnswerError",
        "WindowError",
        "WindowIngestedError",
        "WindowOverlapError",
        "WindowRefusedError",
        "from_dict",
        "error_context",
        "telling",
        "tree",
    },
}


def modules_after(code):
    """Return the modules that a new Python process has imported after some code."""
    program = f"{code}\nimport sys, json; print('MODULES' + json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert 0 == done.returncode, done.stderr
    return set(json.loads(done.stdout.partition("MODULES")[2]))


@pytest.fixture(scope="module")
def sdk_modules():
    """Return the modules that Airflow's names import."""
    return modules_after(SDK)


def test_a_dag_file_imports_nothing_heavy(sdk_modules):
    """A DAG file imports only light modules in addition to those of Airflow."""
    added = (
        modules_after(f"{SDK}from airflow_flowservice import alerts, freshness, operators, sensors, links")
        - sdk_modules
    )
    assert "airflow_flowservice.operators" in added
    assert [] == sorted(name for name in added if any(f"{name}.".startswith(f"{heavy}.") for heavy in HEAVY))


@pytest.mark.slow
def test_a_watcher_imports_neither_client_nor_hook():
    """Airflow itself imports its base class of triggers for an `AssetWatcher`."""
    code = f"""{SDK}
from airflow.sdk import AssetWatcher
from airflow.triggers.base import BaseEventTrigger
"""
    made = "FlowRunsTrigger(flow_id='f', since='2026-01-01T00:00:00Z')"
    added = modules_after(
        f"{code}from airflow_flowservice.watchers import FlowRunsTrigger\nAssetWatcher(name='w', trigger={made})"
    ) - modules_after(code)
    assert "airflow_flowservice.watchers" in added
    heavy = {"requests", "urllib3", "airflow_flowservice.api.client", "airflow_flowservice.hooks"}
    assert [] == sorted(heavy & added) + [name for name in added if name.startswith("airflow_flowservice.runs")]


@pytest.mark.slow
def test_making_tasks_imports_nothing_heavy(sdk_modules):
    """Making the tasks imports no more than importing their classes."""
    code = f"""{SDK}
from airflow_flowservice.operators import OnDemandFlowRunOperator
from airflow_flowservice.sensors import FlowRunSensor
with DAG("dag", schedule="@daily"):
    create = OnDemandFlowRunOperator(task_id="create", flow_id="f", delta_column="c", deferrable=False)
    FlowRunSensor(task_id="wait", flow_run_id=create.output, deferrable=False)
"""
    plain = f"{SDK}\nwith DAG('dag', schedule='@daily'):\n    create = BaseOperator(task_id='create')\n"
    added = modules_after(code) - modules_after(plain)
    assert [] == sorted(name for name in added if any(f"{name}.".startswith(f"{heavy}.") for heavy in HEAVY))


def test_the_assets_module_imports_only_errors():
    """Airflow imports this module in every process that makes an asset of any provider."""
    added = modules_after("import airflow_flowservice.assets") - modules_after(
        "import typing, contextlib, urllib.parse"
    )
    assert {
        "airflow_flowservice",
        "airflow_flowservice.assets",
        "airflow_flowservice.exceptions",
        "airflow_flowservice.plain_text",
    } == {
        name
        for name in added
        if not hasattr(sys, "stdlib_module_names") or name.partition(".")[0] not in sys.stdlib_module_names
    }


@pytest.mark.parametrize("module", ["airflow_flowservice", "airflow_flowservice.get_provider_info"])
def test_the_package_itself_imports_nothing(module):
    """Airflow's discovery imports the provider in every process."""
    added = modules_after(f"import {module}") - modules_after("import typing, __future__")
    assert set() == {name for name in added if not name.startswith("airflow_flowservice")}
    assert {"airflow_flowservice", module} == {name for name in added if name.startswith("airflow_flowservice")}


@pytest.mark.parametrize("module", INTERFACE)
def test_the_public_names_are_pinned(module):
    """The public classes and functions of each module are listed explicitly."""
    found = importlib.import_module(module)
    own = [name for name, value in vars(found).items() if getattr(value, "__module__", None) == module]
    names = getattr(found, "__all__", None) or [name for name in own if not name.startswith("_")]
    assert INTERFACE[module] == {name for name in names if callable(getattr(found, name))}


def test_the_arguments_of_the_interface_are_pinned():
    """Arguments are final: a removed argument breaks DAGs."""
    import inspect

    from airflow_flowservice._flow_run_operator import FlowRunOperator
    from airflow_flowservice.operators import OnDemandFlowRunOperator, RetriggerFlowRunOperator
    from airflow_flowservice.sensors import FlowRunSensor

    def arguments(cls):
        parameters = inspect.signature(cls.__init__).parameters.values()
        return [parameter.name for parameter in parameters if parameter.kind is inspect.Parameter.KEYWORD_ONLY]

    waiting = [
        "wait_for_completion",
        "deferrable",
        "poll_interval",
        "wait_timeout",
        "error_budget",
        "max_failed_records",
        "max_failed_ratio",
        "on_empty",
        "wait_for_batch",
        "on_uncertain",
        "uncertain_patience",
        "ask_timeout",
        "ask_notifiers",
        "flowservice_conn_id",
    ]
    window = [
        "flow_id",
        "flow_name",
        "delta_column",
        "window_start",
        "window_end",
        "window_offset",
        "window",
        "start_time",
        "check_flow",
        "on_ingested",
        "on_overlap",
        "continues",
    ]
    sensor = [
        "flow_run_id",
        "deferrable",
        "poke_interval",
        "error_budget",
        "max_failed_records",
        "max_failed_ratio",
        "on_empty",
        "wait_for_batch",
        "start_from_trigger",
        "flowservice_conn_id",
    ]
    assert waiting == arguments(FlowRunOperator)
    assert window == arguments(OnDemandFlowRunOperator)
    assert ["flow_run_id"] == arguments(RetriggerFlowRunOperator)
    assert sensor == arguments(FlowRunSensor)


def test_the_interfaces_defaults_are_pinned():
    """By default, the operator only creates, and fails if the outcome is unknown."""
    from airflow_flowservice.operators import OnDemandFlowRunOperator

    made = OnDemandFlowRunOperator(task_id="task", flow_id="f")
    assert (False, False, 30.0, None, "fail", "flowservice_default", True) == (
        made.wait_for_completion,
        made.deferrable,
        made.poll_interval,
        made.wait_timeout,
        made.on_uncertain,
        made.flowservice_conn_id,
        made.check_flow,
    )
