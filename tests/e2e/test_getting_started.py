# SPDX-License-Identifier: Apache-2.0
"""Follow the page Getting started as a reader does: each block in order, waiting only where the page requires it."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from command_line import run
from pages import Step, commands_in, steps
from patience import wait_until

if TYPE_CHECKING:
    from airflow_flowservice.demo.emulator import EmulatedFlowService

PAGE = "docs/getting-started.md"
FLOW = "3abea21c-7e36-4be1-bec1-d3bad0e3e0de"
# tests/unit/test_doc_commands.py checks these; the package is installed already.
INSTALLATION = ("python3", "source", "pip")
TERMINALS = ("first", "second", "third")
# The local Airflow has PostgreSQL instead.
DATABASE = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"
# Variables of the local Airflow whose effect the page must say how to get.
OPTIONAL = ("AIRFLOW__CORE__LOAD_EXAMPLES",)


class Reader:
    """Reader of the page, with an empty home folder.

    `airflow standalone` is not used: its log servers listen on every address, and its SQLite is locked on a busy
    machine. The same components start on 127.0.0.1 with an embedded PostgreSQL. The port of the emulator is a free one.
    Each terminal has only the variables that the page exports there, apart from those that select this Airflow.
    """

    def __init__(self, home: Path, servers: ExitStack) -> None:
        from airflow_flowservice.demo.local_airflow import LocalAirflow

        self.home = home
        self.servers = servers
        self.exported: dict[str, dict[str, str]] = {name: {} for name in TERMINALS}
        self.emulator: EmulatedFlowService | None = None
        self.airflow: LocalAirflow | None = None

    def follow(self, step: Step) -> None:
        """Do what a block says, then wait if the text after it requires it."""
        if step.language == "python":
            self.write(step)
            return
        terminals = TERMINALS if step.terminal == "each" else (step.terminal,)
        printed = [self.run(words, terminal=name) for name in terminals for words in commands_in(step.text)]
        if step.starts_airflow:
            self.airflow.wait_healthy(timeout=300)
        if awaited := step.awaited:
            (command,) = commands_in(step.text)
            wait_until(
                lambda: awaited in (printed.pop() if printed else self.run(command, terminal=step.terminal)),
                what=awaited,
            )

    def write(self, step: Step) -> None:
        """Write the file that the text before a Python block names."""
        file = self.home / step.file
        file.parent.mkdir(parents=True)
        file.write_text(step.text)

    def run(self, words: list[str], *, terminal: str) -> str:
        """Run a command, or start a server, and return the output."""
        if words[0] in INSTALLATION:
            return ""
        if words[0] == "export":
            name, _, value = words[1].partition("=")
            if name != DATABASE:
                self.exported[terminal][name] = value
            return ""
        if words == ["airflow", "standalone"]:
            return self.start_airflow(self.exported[terminal])
        if words == ["python", "-m", "airflow_flowservice.emulator", "--port", "8710"]:
            return self.start_emulator()
        arguments = [word.replace("http://127.0.0.1:8710", self.emulator.url) for word in words[1:]]
        inherited = {name: text for name, text in self.airflow.environment.items() if name not in OPTIONAL}
        done = run(self.airflow, arguments, env=inherited | self.exported[terminal])
        # `coverage` exits with 1 as long as a window is missing: the page repeats it.
        expected = (0, 1) if "coverage" in words else (0,)
        assert done.returncode in expected, f"{shlex.join(words)}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def start_airflow(self, exported: dict[str, str]) -> str:
        from airflow_flowservice.demo.local_airflow import LocalAirflow

        folder = self.home / "airflow"
        # New files are found as slowly as by default, so that the page has to say what to do.
        config = {
            "AIRFLOW__CORE__LOAD_EXAMPLES": "True",
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "300",
            **exported,
        }
        self.airflow = self.servers.enter_context(
            LocalAirflow(home=folder, dags_folder=folder / "dags", connections={}, config=config)
        )
        return ""

    def start_emulator(self) -> str:
        from airflow_flowservice.demo.emulator import start_emulator
        from airflow_flowservice.demo.processes import Supervisor

        supervisor = self.servers.enter_context(Supervisor(log_folder=self.home / "emulator"))
        self.emulator = start_emulator(supervisor, cwd=self.home, options={})
        return ""


@pytest.fixture
def reader(tmp_path: Path, _can_run_airflow: None) -> Iterator[Reader]:
    """Return a reader whose servers end with the test."""
    with ExitStack() as servers:
        yield Reader(tmp_path, servers)


def test_reader_of_the_page_ingests_each_window_once(reader: Reader) -> None:
    """A reader without Airflow and without Adobe follows the page and has each window in the emulator's ledger once."""
    for step in steps(PAGE):
        reader.follow(step)
    january = {"start": datetime(2026, 1, 1, tzinfo=timezone.utc), "end": datetime(2026, 1, 4, tzinfo=timezone.utc)}
    ledger = reader.emulator.ledger(flow_id=FLOW, **january)
    assert (0, 0) == (ledger["missing"], ledger["duplicated"])
    assert 3 == len(reader.airflow.dag_runs("ingest_orders", run_type="backfill"))
    assert ["ingest_orders"] == [each["dag_id"] for each in reader.airflow.api("GET", "/dags")["dags"]]


def test_airflow_prints_what_the_page_waits_for() -> None:
    """`airflow standalone` prints this text when all components are ready."""
    from airflow.cli.commands.standalone_command import StandaloneCommand

    assert "Airflow is ready" in inspect.getsource(StandaloneCommand.print_ready)
