# SPDX-License-Identifier: Apache-2.0
"""Run the files of the page about testing DAGs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "testing-your-dags.md"


def test_tests_of_the_page_pass(tmp_path: Path) -> None:
    """The page's files pass in an empty folder; two days are ingested, one of them after a lost response."""
    files = dict(re.findall(r"```python\n# ([\w/]+\.py)\n(.*?)```", PAGE.read_text(), flags=re.S))
    assert {"tests/conftest.py", "dags/ingest_orders.py", "tests/test_ingest_orders.py"} == set(files)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    environment = {name: value for name, value in os.environ.items() if "AIRFLOW" not in name}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    environment["TMPDIR"] = str(tmp_path)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert 0 == done.returncode, done.stdout[-3000:] + done.stderr[-1000:]
    assert "3 passed" in done.stdout
