# SPDX-License-Identifier: Apache-2.0
"""Compare the import time of this package's operators with the import time of Airflow's own classes.

`python benchmarks/imports.py` starts new Python processes in turns. One kind imports only Airflow's DAG and operator
classes; the other also imports this package's operators and sensors. The exit status is 1 if the package adds more than
five percent of processor time. It takes about two minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from statistics import median

AIRFLOW_ONLY = "from airflow.sdk import DAG, BaseOperator, BaseSensorOperator"
WITH_PACKAGE = f"{AIRFLOW_ONLY}\nimport airflow_flowservice.operators, airflow_flowservice.sensors"
_MEASURE = """
import json, sys, time
begin = time.process_time()
{code}
spent = time.process_time() - begin
ours = sorted(name for name in sys.modules if name.startswith("airflow_flowservice"))
print(json.dumps([spent, ours, len(sys.modules)]))
"""
MAX_RATIO = 1.05


def main() -> None:
    """Measure and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=15)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        pairs = [(measure_import(AIRFLOW_ONLY, home), measure_import(WITH_PACKAGE, home)) for _ in range(options.turns)]
    airflow_only, with_package = (median(pair[kind][0] for pair in pairs) for kind in (0, 1))
    minima = [min(pair[kind][0] for pair in pairs) for kind in (0, 1)]
    modules = [name for name in pairs[-1][1][1] if name not in pairs[-1][0][1]]
    ratio = minima[1] / minima[0]
    print(f"ratio of the medians {with_package / airflow_only:.3f}, of the minima {ratio:.3f} ({options.turns} turns)")
    print(f"modules: {pairs[-1][1][2] - pairs[-1][0][2]} more, {len(modules)} of this package: {', '.join(modules)}")
    sys.exit(ratio > MAX_RATIO)


def measure_import(code: str, home: str) -> tuple[float, list[str], int]:
    """Return the processor seconds of an import, the package's modules, and the number of all imported modules."""
    command = [sys.executable, "-c", _MEASURE.format(code=code)]
    environment = {**os.environ, "AIRFLOW_HOME": home}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True)
    spent, ours, count = json.loads(done.stdout.splitlines()[-1])
    return spent, ours, count


if __name__ == "__main__":
    main()
