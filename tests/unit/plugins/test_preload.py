# SPDX-License-Identifier: Apache-2.0
"""Import of modules in the processes of Airflow that fork those of tasks and DAG files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from airflow_flowservice.plugins import preload

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"
LOAD = """
import json, sys
sys.argv = {argv!r}
from airflow_flowservice.plugins.plugin import FlowServicePlugin
{load}
print(json.dumps([name for name in ("airflow_flowservice.operators", "requests") if name in sys.modules]))
"""
ON_LOAD = "FlowServicePlugin.on_load()"
ALL = ["airflow_flowservice.operators", "requests"]
# The LocalExecutor starts its workers with this module.
IN_CHILD = """
import multiprocessing
context = multiprocessing.get_context("fork")
queue = context.SimpleQueue()
def load():
    FlowServicePlugin.on_load()
    queue.put("airflow_flowservice.operators" in sys.modules)
child = context.Process(target=load)
child.start()
child.join()
assert not queue.get()
"""
TASKS = """
import json, os, sys, time
from pathlib import Path
sys.path.insert(0, {benchmarks!r})
import messages
sys.path.insert(0, str(messages.TESTS / "support"))
sys.argv = ["airflow", "scheduler"]
from airflow_flowservice.plugins.plugin import FlowServicePlugin
FlowServicePlugin.on_load()
fixtures = messages.load_fixtures()
with messages.running_emulator(fixtures) as (emulator, clock):
    before = set(sys.modules)
    for day, task in enumerate(messages.TASKS):
        clock.set(at=time.time(), speed=fixtures.SPEED)
        emulator.reset()
        messages.cost_of(fixtures, emulator, task=task, ledger="airflow", folder=Path({folder!r}), day=day)
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def run_python(code: str, *, home: Path, executor: str) -> Any:
    """Run code in a new Python process; return the JSON in the last line of its output."""
    settings = {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__EXECUTOR": executor,
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        "AIRFLOW__OPENLINEAGE__DISABLED": "True",
    }
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert 0 == done.returncode, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_task_imports_no_further_module_of_this_package(tmp_path: Path) -> None:
    """Each module that is missing in the list would be imported by each task again."""
    code = TASKS.format(benchmarks=str(BENCHMARKS), folder=str(tmp_path))
    added = run_python(code, home=tmp_path, executor="LocalExecutor")
    assert [] == [name for name in added if name.partition(".")[0] in ("airflow_flowservice", "requests", "urllib3")]


@pytest.mark.parametrize(
    ("expected", "executor", "command", "load"),
    [
        pytest.param(ALL, "LocalExecutor", "scheduler", ON_LOAD, id="scheduler"),
        pytest.param(ALL, "CeleryExecutor,LocalExecutor", "scheduler", ON_LOAD, id="several-executors"),
        pytest.param(ALL[:1], "CeleryExecutor", "dag-processor", ON_LOAD, id="dag-processor"),
        pytest.param([], "CeleryExecutor", "scheduler", ON_LOAD, id="other-executor"),
        pytest.param([], "LocalExecutor", "triggerer", ON_LOAD, id="other-component"),
        pytest.param([], "LocalExecutor", "scheduler", IN_CHILD, id="process-of-a-task"),
    ],
)
def test_only_components_that_fork_import(
    tmp_path: Path, expected: list[str], executor: str, command: str, load: str
) -> None:
    """Elsewhere, the modules would only need time and memory."""
    code = LOAD.format(argv=["airflow", command], load=load)
    assert expected == run_python(code, home=tmp_path, executor=executor)


def test_an_error_does_not_affect_the_scheduler(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The tasks import their modules themselves, and report the error."""
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "LocalExecutor")
    monkeypatch.setattr(preload, "_OF_TASKS", ("airflow_flowservice.missing",))
    caplog.set_level("DEBUG", logger=preload.__name__)
    preload.preload("scheduler")
    assert "airflow_flowservice.missing" in caplog.text
