# SPDX-License-Identifier: Apache-2.0
"""Verify that `airflow flowservice flows` lists the dataflows of a sandbox and prints a DAG file that works."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from patience import wait_until

from airflow_flowservice.emulator.server import Emulator
from airflow_flowservice.hooks import FlowServiceHook
from airflow_flowservice.windows.window import IngestionWindow

TABLE = "3abea21c-7e36-4be1-bec1-d3bad0e3e0de"
FILES = "c9cef9cb-c934-4467-8ef9-cbc934546741"
HOURLY = "2edc08ac-4df5-4fe6-936f-81a19ce92f5c"
DISABLED = "7d15ab1e-0f10-4d15-8ab1-ed0000000001"


@pytest.fixture
def flows(connect: Callable[..., str], command: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that lists the dataflows of the emulator's sandbox."""
    return lambda *options, **values: command("flows", "--conn-id", connect(**values), *options)


def test_all_dataflows_by_name(flows: Any) -> None:
    shown = flows("--output", "json")
    assert [FILES, HOURLY, TABLE, DISABLED] == [each["flow_id"] for each in shown.json]
    table = shown.json[2]
    assert ("Orders (table, one-time)", "enabled", "once", True) == tuple(
        table[key] for key in ("name", "state", "schedule", "one_time")
    )
    assert (True, None) == (table["table_based"], table["last_run_id"])
    assert 0 == shown.status


def test_only_one_time_dataflows(flows: Any) -> None:
    """A dataflow with a schedule of Adobe's is not listed."""
    shown = flows("--one-time", "--output", "json")
    assert [FILES, TABLE, DISABLED] == [each["flow_id"] for each in shown.json]


def test_last_flow_run_is_listed(flows: Any, connect: Any) -> None:
    window = IngestionWindow(datetime(2026, 1, 1, tzinfo=timezone.utc), datetime(2026, 1, 2, tzinfo=timezone.utc))
    with FlowServiceHook(connect()).get_conn() as client:
        created = client.create_run(flow_id=FILES, window=window, start_time=datetime.now(timezone.utc))
        wait_until(lambda: client.get_run(created.id).status.ended, what="the end of the flow run")
    (listed,) = flows("--flow-id", FILES, "--output", "json").json
    assert (created.id, "success") == (listed["last_run_id"], listed["last_run_status"])
    assert listed["last_run_completed"].endswith("+00:00")


def test_each_specification_is_read_once(flows: Any, emulator: Emulator) -> None:
    flows()
    assert 2 == emulator.ledger()["requests"]["GET /flowSpecs/{id}"]


def test_unreadable_specifications(flows: Any, emulator: Emulator) -> None:
    """Without permission for specifications, the list shows their ids."""
    emulator.plan_fault(kind="GET /flowSpecs/{id}", action="refuse", status=403)
    shown = flows("--output", "json")
    assert 4 == len(shown.json)
    assert {None} == {each["table_based"] for each in shown.json}
    assert 2 == len({each["source"] for each in shown.json})


def test_all_pages_of_the_list_are_read(flows: Any, emulator: Emulator) -> None:
    for number in range(230):
        emulator.add_flow(id=f"00000000-0000-4000-8000-{number:012}", name=f"flow {number:03}", kind="file")
    shown = flows("--output", "json")
    assert 234 == len({each["flow_id"] for each in shown.json})


@pytest.mark.parametrize("output", ["table", "plain"])
def test_rows_have_whole_ids(flows: Any, output: str) -> None:
    shown = flows("--output", output)
    assert all(flow_id in shown.out for flow_id in (TABLE, FILES, HOURLY, DISABLED))
    assert "one-time" in shown.out


def test_unknown_dataflow(flows: Any) -> None:
    unknown = "00000000-0000-4000-8000-000000000000"
    shown = flows("--flow-id", TABLE, "--flow-id", unknown)
    assert (2, "") == (shown.status, shown.out)
    assert unknown in shown.err
    assert TABLE not in shown.err


def test_no_one_time_dataflow(flows: Any) -> None:
    shown = flows("--flow-id", HOURLY, "--one-time")
    assert 2 == shown.status
    assert f"None of the dataflows of --flow-id is one-time: {HOURLY}" in shown.err
    assert "omit --one-time" in shown.err


def test_wrong_credential(flows: Any) -> None:
    """The error has a remedy, and neither output has the secret."""
    shown = flows(password="wr0ng-s3cret")
    assert (2, "") == (shown.status, shown.out)
    assert "What to do: " in shown.err
    assert "wr0ng-s3cret" not in shown.err


@pytest.mark.parametrize("output", ["table", "json", "yaml", "plain", "dag"])
def test_no_output_has_the_secret(flows: Any, output: str) -> None:
    shown = flows("--output", output)
    assert TABLE in shown.out
    assert "emulator-secret" not in shown.out + shown.err


def test_unknown_connection(command: Any) -> None:
    shown = command("flows", "--conn-id", "missing")
    assert 2 == shown.status
    assert "missing" in shown.err


HOSTILE_NAME = 'x"""\n    import os; os._exit(3)  # {conn_id} \x1b[31m é'


def test_dag_file_has_a_task_for_each_dataflow(flows: Any, emulator: Emulator, tmp_path: Path) -> None:
    """Airflow can load the printed file; names of dataflows are data, never code."""
    emulator.add_flow(id="00000000-0000-4000-8000-000000000001", name=HOSTILE_NAME, kind="file")
    emulator.add_flow(id="00000000-0000-4000-8000-000000000002", name="日本", kind="file")
    emulator.add_flow(id="00000000-0000-4000-8000-000000000003", name="Orders (table one time)", kind="file")
    shown = flows("--output", "dag")
    assert 0 == shown.status
    (tmp_path / "printed.py").write_text(shown.out)
    listing = (
        "import printed; dag = printed.dag; "
        "print('\\n'.join(f'{each.task_id} {each.flow_id} {each.flowservice_conn_id}' for each in dag.tasks))"
    )
    done = subprocess.run([sys.executable, "-c", listing], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert 0 == done.returncode, done.stderr
    tasks = dict(line.split(" ", 1) for line in done.stdout.splitlines()[-7:])
    assert f"{TABLE} doctor" == tasks[f"orders_table_one_time_{TABLE}"]
    assert "00000000-0000-4000-8000-000000000003 doctor" == tasks["orders_table_one_time"]
    assert "00000000-0000-4000-8000-000000000002 doctor" in tasks.values()
    assert 7 == len(set(tasks.values()))


def test_dag_file_names_what_is_missing(flows: Any) -> None:
    """Two tables need a delta column; a schedule or a disabled dataflow refuses flow runs."""
    lines = flows("--output", "dag").out
    assert 2 == lines.count('# "delta_column"')
    assert "on-demand flow runs are refused" in lines
    assert "enable the dataflow first" in lines
