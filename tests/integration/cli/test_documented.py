"""Run the documentation's commands, and compare the output with README."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pages import PAGES, blocks, commands
from patience import wait_until


def documented(subcommand: str) -> list[Any]:
    """Return the arguments of each `airflow flowservice SUBCOMMAND` on all pages."""
    prefix = ["airflow", "flowservice", subcommand]
    return [
        pytest.param(words[2:], id=f"{page}:{number}")
        for page in PAGES
        for number, words in enumerate(commands(page))
        if words[:3] == prefix
    ]


@pytest.fixture
def dag_file(tmp_path: Path) -> Path:
    """Create a file with README's DAG."""
    file = tmp_path / "ingest_orders.py"
    file.write_text(blocks("README.md", "python")[0])
    return file


@pytest.mark.parametrize("words", documented("windows"))
def test_windows_are_contiguous(words: list[str], dag_file: Path, command: Callable[..., Any]) -> None:
    """The windows of README's DAG are contiguous, and the output is exactly the one in README."""
    printed = command(*words, "-f", str(dag_file))
    assert 0 == printed.status, printed.err
    shown = next(block for block in blocks("README.md", "text") if block.startswith("run  "))
    assert shown.split() == printed.out.split()
    assert shown == re.sub(r" +$", "", printed.out, flags=re.M)


@pytest.mark.parametrize("words", documented("check"))
def test_check_finds_nothing_wrong(words: list[str], connect: Callable[..., str], command: Callable[..., Any]) -> None:
    """The connection and the dataflow of the pages pass the check, against the emulator."""
    connect("flowservice_default")
    printed = command(*words)
    assert 0 == printed.status, printed.out
    assert "3abea21c-7e36-4be1-bec1-d3bad0e3e0de" in printed.out


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
