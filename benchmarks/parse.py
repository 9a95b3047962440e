# SPDX-License-Identifier: Apache-2.0
"""Measure how the time to parse a DAG file grows with the number of its dataflows.

`python benchmarks/parse.py` parses `dags_examples/flowservice_from_yaml.py` with YAML files of 125, 250, 500 and 1,000
dataflows, as Airflow's DAG processor does: it executes the file, and serializes the DAG. Each cell is the processor
time of one dataflow as a ratio to the first cell of its row. The slope is the exponent of the growth of the whole file:
1 is linear. The exit status is 1 if it exceeds 1.2.

The last line compares 500 dataflows with 500 tasks that do nothing. It takes about half a minute.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import pendulum
import yaml
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG
from airflow.serialization import serialized_objects

from airflow_flowservice._airflow import versions

# The class has another name before Airflow 3.2.
_SERIALIZED: Any = getattr(serialized_objects, "DagSerialization", None) or serialized_objects.SerializedDAG
EXAMPLE = Path(__file__).resolve().parents[1] / "dags_examples" / "flowservice_from_yaml.py"
MAX_SLOPE = 1.2


def main() -> int:
    """Measure and print a table; return 1 if the time grows faster than linearly, else 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[125, 250, 500, 1000])
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    sizes = sorted(options.sizes)
    with tempfile.TemporaryDirectory() as folder:
        files = {size: write_dag_file(Path(folder), size) for size in sizes}
        parse_file(files[sizes[0]])
        rows = {
            "execute the file": measure(lambda size: parse_file(files[size]), sizes, turns=options.turns),
            "also serialize": measure(lambda size: serialize(parse_file(files[size])), sizes, turns=options.turns),
        }
    print("| time of a dataflow | " + " | ".join(f"{size:,}" for size in sizes) + " | slope |")
    print("| --- |" + " --- |" * (len(sizes) + 1))
    for name, seconds in rows.items():
        ratios = [each / size / (seconds[0] / sizes[0]) for each, size in zip(seconds, sizes, strict=True)]
        print(f"| {name} | " + " | ".join(f"{ratio:.2f}" for ratio in ratios) + f" | {slope(sizes, seconds):.2f} |")
    largest = max(slope(sizes, seconds) for seconds in rows.values())
    print(f"Largest slope: {largest:.2f}")
    plain = measure(lambda size: serialize(dag_without_dataflows(size)), sizes[-2:-1], turns=options.turns)
    print(f"{sizes[-2]} dataflows: {rows['also serialize'][-2] / plain[0]:.2f} times as long as tasks that do nothing")
    return int(largest > MAX_SLOPE)


def slope(sizes: Sequence[int], seconds: Sequence[float]) -> float:
    """Return the exponent of the growth from the smallest to the largest size."""
    return math.log(seconds[-1] / seconds[0]) / math.log(sizes[-1] / sizes[0])


def measure(action: Callable[[int], object], sizes: Sequence[int], *, turns: int) -> list[float]:
    """Return the smallest processor seconds of each size. The sizes take turns, so that other load affects all."""
    found: dict[int, list[float]] = {size: [] for size in sizes}
    for _ in range(turns):
        for size in sizes:
            gc.collect()
            begin = time.process_time()
            action(size)
            found[size].append(time.process_time() - begin)
    return [min(found[size]) for size in sizes]


def write_dag_file(folder: Path, size: int) -> Path:
    """Write the example with a YAML file of some dataflows, and return its path."""
    file = folder / f"dataflows_{size}.py"
    file.write_text(EXAMPLE.read_text())
    names = [f"dataflow_{number}" for number in range(size)]
    dataflows = {name: {"flow_id": str(uuid5(NAMESPACE_URL, name)), "delta_column": "updated_at"} for name in names}
    file.with_suffix(".yaml").write_text(yaml.safe_dump(dataflows))
    return file


def parse_file(file: Path) -> Any:
    """Execute a DAG file as Airflow does, and return its only DAG."""
    bag = versions.dag_bag(str(file))
    if bag.import_errors:
        raise RuntimeError(str(bag.import_errors))
    (dag,) = bag.dags.values()
    return dag


def dag_without_dataflows(size: int) -> DAG:
    """Return a DAG with as many tasks that do nothing."""
    with DAG(dag_id="plain", schedule="@daily", start_date=pendulum.datetime(2026, 1, 1, tz="UTC")) as dag:
        for number in range(size):
            EmptyOperator(task_id=f"task_{number}")
    return dag


def serialize(dag: Any) -> str:
    """Return the JSON of a DAG, which the DAG processor stores."""
    return json.dumps(_SERIALIZED.to_dict(dag))


if __name__ == "__main__":
    sys.exit(main())
