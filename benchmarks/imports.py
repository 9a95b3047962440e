"""What a DAG file pays for our operators, beside what it pays for Airflow's own: processor time, in turns.

`python benchmarks/imports.py` starts Python again and again, with an import of Airflow's DAG and operator classes
alone, and with our operators and sensors after it. It ends with 1 if ours add more than a twentieth. About two minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from statistics import median

BARE = "from airflow.sdk import DAG, BaseOperator, BaseSensorOperator"
OURS = f"{BARE}\nimport airflow_flowservice.operators, airflow_flowservice.sensors"
_ASK = """
import json, sys, time
begin = time.process_time()
{code}
spent = time.process_time() - begin
ours = sorted(name for name in sys.modules if name.startswith("airflow_flowservice"))
print(json.dumps([spent, ours, len(sys.modules)]))
"""
MOST = 1.05


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=15)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        pairs = [(imported(BARE, home), imported(OURS, home)) for _ in range(options.turns)]
    bare, ours = (median(pair[way][0] for pair in pairs) for way in (0, 1))
    least = [min(pair[way][0] for pair in pairs) for way in (0, 1)]
    modules = [name for name in pairs[-1][1][1] if name not in pairs[-1][0][1]]
    print(f"ratio of the medians {ours / bare:.3f}, of the minima {least[1] / least[0]:.3f} ({options.turns} turns)")
    print(f"modules: {pairs[-1][1][2] - pairs[-1][0][2]} more, {len(modules)} of them ours: {', '.join(modules)}")
    sys.exit(least[1] / least[0] > MOST)


def imported(code: str, home: str) -> tuple[float, list[str], int]:
    """Processor seconds, our modules, and how many modules there are after it."""
    command = [sys.executable, "-c", _ASK.format(code=code)]
    environment = {**os.environ, "AIRFLOW_HOME": home}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True)
    spent, ours, count = json.loads(done.stdout.splitlines()[-1])
    return spent, ours, count


if __name__ == "__main__":
    main()
