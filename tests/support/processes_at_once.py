# SPDX-License-Identifier: Apache-2.0
"""Run a program in several processes that start at the same time."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

_FORKS = """
import json, os, sys, traceback
values = json.loads(sys.stdin.read())

def show(value):
    os.write(1, (json.dumps(value) + "\\n").encode())

exec(compile(values["imports"], "imports", "exec"))
ready, go = os.pipe()
children = []
for number in range(values["count"]):
    child = os.fork()
    if child == 0:
        os.close(go)
        os.read(ready, 1)
        try:
            exec(compile(values["program"], "program", "exec"))
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
        os._exit(0)
    children.append(child)
os.close(go)
sys.exit(sum(os.waitpid(child, 0)[1] != 0 for child in children))
"""


def run_at_once(program: str, *, count: int, imports: str, values: Mapping[str, Any]) -> list[Any]:
    """Return what each process printed as one line of JSON.

    As Airflow's executor does, one process imports modules and forks the others; these wait until all exist.

    :param program: Python code; `number` counts the processes from 0, and `show(value)` prints a JSON value.
    :param imports: Python code that runs once before the forks.
    :param values: JSON values with these names.
    """
    assignments = "\n".join(f"{name} = values[{name!r}]" for name in values)
    sent = {**values, "count": count, "imports": f"{imports}\n{assignments}", "program": program}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _FORKS],
        input=json.dumps(sent),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert 0 == done.returncode, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]
