# SPDX-License-Identifier: Apache-2.0
"""Run the documentation's commands, and compare the output with the pages."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from pages import PAGES, blocks, commands
from patience import wait_until

from airflow_flowservice._airflow import versions
from airflow_flowservice._airflow.flow_run_task import failed_records_command
from airflow_flowservice.emulator.server import Emulator
from airflow_flowservice.hooks import FlowServiceHook
from airflow_flowservice.windows.window import IngestionWindow

WINDOWS_PAGE = "docs/windows.md"


def documented(subcommand: str, *, without: str = "") -> list[Any]:
    """Return each page with `airflow flowservice SUBCOMMAND`, and the command's arguments.

    :param without: option of the commands that are omitted.
    """
    prefix = ["airflow", "flowservice", subcommand]
    return [
        pytest.param(page, words[2:], id=f"{page}:{number}", marks=_marks(page))
        for page in PAGES
        for number, words in enumerate(commands(page))
        if words[:3] == prefix and without not in words
    ]


def _marks(page: str) -> Any:
    return pytest.mark.needs_airflow(3, 2, "partitioned timetables") if page == "docs/how-to/partitions.md" else ()


def dag_file(folder: Path, *, page: str, dag_id: str) -> Path:
    """Create a file with the page's DAG, or with README's if the page has none of that id."""
    found = [block for name in (page, "README.md") for block in blocks(name, "python") if f'"{dag_id}"' in block]
    file = folder / "dag.py"
    file.write_text(found[0])
    return file


@pytest.mark.parametrize(("page", "words"), documented("windows"))
def test_windows_are_contiguous(page: str, words: list[str], tmp_path: Path, command: Callable[..., Any]) -> None:
    """The windows of the page's DAG are contiguous. The output is exactly the one on the page Windows."""
    printed = command(*words, "-f", str(dag_file(tmp_path, page=page, dag_id=words[words.index("--dag-id") + 1])))
    assert 0 == printed.status, printed.err
    assert " are contiguous." in printed.out
    if words == _command_with_output():
        shown = next(block for block in blocks(WINDOWS_PAGE, "text") if block.startswith("run  "))
        assert shown.split() == printed.out.split()
        assert shown == re.sub(r" +$", "", printed.out, flags=re.M)


def _command_with_output() -> list[str]:
    """Return the command whose output the page Windows shows."""
    found = (words[2:] for words in commands(WINDOWS_PAGE) if words[2:3] == ["windows"])
    return next(found)


@pytest.mark.parametrize(("page", "words"), documented("check", without="--dag-id"))
def test_check_finds_nothing_wrong(
    page: str, words: list[str], connect: Callable[..., str], command: Callable[..., Any]
) -> None:
    """The connection and the dataflow of each page pass the check, against the emulator."""
    connect(words[words.index("--conn-id") + 1])
    printed = command(*words)
    assert 0 == printed.status, (page, printed.out)
    assert "3abea21c-7e36-4be1-bec1-d3bad0e3e0de" in printed.out or "--flow-id" not in words


PAGE = "docs/when-a-run-fails.md"
FLOW_RUN = "6b1f0c52-8f0e-4c57-9d0a-0a4f5b1c2d3e"


@pytest.fixture
def failed_run(emulator: Emulator, connect: Callable[..., str]) -> None:
    """Create the flow run of the page: three of its rows failed."""
    connect("flowservice_default")
    mapper = {"code": "MAPPER-3700-400", "message": "The amount is not a number."}
    missing = {"code": "INGEST-1555-400", "message": "A required field is missing."}
    emulator.plan_outcome(status="partialSuccess", failed_records=3, row_errors=[mapper, mapper, missing])
    start = datetime(2026, 1, 2, tzinfo=timezone.utc)
    window = IngestionWindow(start, start + timedelta(days=1))
    with FlowServiceHook("flowservice_default").client as client:
        created = client.create_run(
            flow_id="3abea21c-7e36-4be1-bec1-d3bad0e3e0de",
            window=window,
            start_time=datetime.now(timezone.utc) - timedelta(seconds=5),
            delta_column="updated_at",
        )
    run = emulator.state.runs.pop(created.id)
    run.id = FLOW_RUN
    emulator.state.runs[FLOW_RUN] = run


def words_of(text: str) -> list[str]:
    """Return the words of an output, without the rules of its table, whose length is that of the terminal."""
    return [word for word in text.split() if set(word) - set("=+-")]


@pytest.mark.usefixtures("failed_run")
def test_failed_records_are_those_of_the_page(
    command: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commands of the five steps print what the page shows, and the file begins with the row of step 5."""
    monkeypatch.chdir(tmp_path)
    message, *expected, line = blocks(PAGE, "text")
    calls = [words for words in commands(PAGE) if words[:3] == ["airflow", "flowservice", "failed-records"]]
    printed = [command(*words[2:]) for words in calls]
    assert [1, 1] == [each.status for each in printed], printed
    assert [words_of(text) for text in expected] == [words_of(each.out) for each in printed]
    assert line == (tmp_path / "failed.jsonl").read_text().partition("\n")[0] + "\n"
    assert message.rstrip().endswith(f" run: {' '.join(calls[0])}")
    monkeypatch.setattr(versions, "version", lambda: (3, 2))
    assert failed_records_command(FLOW_RUN, conn_id="flowservice_default") == " ".join(calls[0])


def test_page_has_five_steps() -> None:
    assert list("12345") == re.findall(r"^## (\d)\.", PAGES[PAGE], flags=re.M)


@pytest.mark.slow
def test_emulator_command_starts_emulator(tmp_path: Path) -> None:
    """The command of the page starts the emulator; the test uses a free port."""
    command = next(words for words in commands("docs/getting-started.md") if "airflow_flowservice.emulator" in words)
    assert ["--port", "8710"] == command[-2:]
    output = tmp_path / "output"
    with output.open("w") as file:
        process = subprocess.Popen([sys.executable, *command[1:-1], "0"], stdout=file)
    try:
        wait_until(lambda: "ready on http://127.0.0.1:" in output.read_text(), what="the emulator to be ready")
    finally:
        process.terminate()
        process.wait(timeout=30)
