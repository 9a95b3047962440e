# SPDX-License-Identifier: Apache-2.0
"""Tests of the demo, the first command in the README."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("rich")


def _demo(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "airflow_flowservice.demo", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=280, cwd=folder)


@pytest.mark.usefixtures("_can_run_airflow")
def test_every_window_is_ingested_exactly_once(tmp_path: Path) -> None:
    """The demo succeeds and prints a row for each window and the result of the ledger."""
    done = _demo("--days", "3", folder=tmp_path)

    assert 0 == done.returncode, done.stdout + done.stderr
    assert "missing 0, duplicated 0" in done.stdout
    assert 3 == done.stdout.count("1,440")


def test_invalid_options_are_rejected(tmp_path: Path) -> None:
    """For an invalid number of days, the demo prints an error and starts no process."""
    done = _demo("--days", "0", folder=tmp_path)

    assert 2 == done.returncode
    assert "'0' is not a number from 1 to 90" in done.stderr
