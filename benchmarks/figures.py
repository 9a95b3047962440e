# SPDX-License-Identifier: Apache-2.0
"""Run all benchmarks in a short form, and fail if a figure is worse than its recorded value by more than a fifth.

    python benchmarks/figures.py            all benchmarks
    python benchmarks/figures.py --quick    only those that need less than a minute

Each figure is a ratio or a count, so that it depends little on the machine. `FIGURES` has the recorded values. To
record a new value, change it there, and the table in README.md with it.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
# A ratio may be worse by a fifth. A count does not depend on the machine, so it must not be worse at all.
RATIO, COUNT = 1.2, 1.0


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure in the output of a benchmark.

    :param pattern: regular expression whose first group is the figure.
    :param recorded: measured value.
    :param factor: largest allowed ratio to the recorded value.
    """

    name: str
    pattern: str
    recorded: float
    factor: float = RATIO

    def read(self, output: str) -> float | None:
        """Return the figure; None if the output lacks it."""
        found = re.search(self.pattern, output, re.MULTILINE)
        return float(found.group(1).replace(",", "")) if found else None

    def is_met(self, value: float | None) -> bool:
        """Return whether the figure is present and not worse than allowed."""
        return value is not None and value <= self.recorded * self.factor


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A benchmark with the arguments of its short form.

    :param is_quick: the short form needs less than a minute.
    """

    command: tuple[str, ...]
    figures: tuple[Figure, ...]
    is_quick: bool = False


def _messages() -> Iterator[Figure]:
    counts = {"creates": (16, 20, 15), "waits in the triggerer": (23, 27, 25), "waits on a worker": (17, 21, 16)}
    for task, numbers in counts.items():
        for ledger, number in zip(("none", "airflow", "sql"), numbers, strict=True):
            pattern = rf"^\| {task} \| {ledger} \| (\d+) "
            yield Figure(name=f"messages, {task}, {ledger}", pattern=pattern, recorded=number, factor=COUNT)


def _row(name: str, column: int) -> str:
    """Return the pattern of a column of a Markdown table, counted after the name."""
    return rf"^\| {name}" + r" \|[^|\n]*" * (column - 1) + r" \| *([\d.,]+)"


_ROWS = ("nothing", "creating_by_hand", "creating", "waiting_by_hand", "waiting")
FIGURES = (
    Benchmark(command=("messages.py",), figures=tuple(_messages()), is_quick=True),
    Benchmark(
        command=("double_submit.py",),
        figures=(
            Figure(
                name="POSTs for 200 windows", pattern=r"^airflow_flowservice +\d+ +(\d+)", recorded=217, factor=COUNT
            ),
            Figure(
                name="duplicated windows", pattern=r"^airflow_flowservice(?: +\d+){3} +(\d+)", recorded=0, factor=COUNT
            ),
        ),
        is_quick=True,
    ),
    Benchmark(
        command=("parse.py",),
        figures=(
            # 1 is linear; 1.2 is the limit of the benchmark itself.
            Figure(name="parsing, slope", pattern=r"^Largest slope: ([\d.]+)", recorded=1.0),
            Figure(name="parsing 500 dataflows", pattern=r"^500 dataflows: ([\d.]+) times", recorded=2.9),
        ),
        is_quick=True,
    ),
    Benchmark(
        command=("imports.py", "--turns", "9"),
        figures=(Figure(name="import of a DAG file", pattern=r"of the minima ([\d.]+)", recorded=1.0, factor=1.05),),
    ),
    Benchmark(
        command=("windows.py", "--seconds", "8"),
        figures=(Figure(name="steps of croniter", pattern=r"^Most steps: ([\d.]+)\.", recorded=3.3),),
    ),
    Benchmark(
        command=("growth.py", "--sizes", "10", "10000", "--windows", "365", "8760"),
        # A slope of 0 is flat; the limit of the benchmark itself is 0.2.
        figures=(Figure(name="slope", pattern=r"^Largest slope: -?([\d.]+)", recorded=0.2, factor=COUNT),),
    ),
    Benchmark(
        command=("waiting.py", "--waiters", "100"),
        figures=(
            Figure(name="100 waiting, requests", pattern=r"ratio +([\d.]+)", recorded=1 / 42),
            Figure(name="100 waiting, processor time", pattern=r"ratio +[\d.]+ +([\d.]+)", recorded=1 / 8.6),
        ),
    ),
    Benchmark(
        command=("many_triggerers.py", "--tasks", "10000", "--triggerers", "10"),
        figures=(
            # Simulated time: about ninety flow runs in one request, a poll every thirty seconds.
            Figure(name="10,000 waiting, requests", pattern=_row("10", 2), recorded=233),
            Figure(name="10,000 waiting, delay", pattern=_row("10", 4), recorded=27),
        ),
    ),
    Benchmark(
        command=("fleet.py", "--dataflows", "60"),
        figures=(Figure(name="summary of 60 dataflows", pattern=r"third time:[^~]*?ratio ([\d.]+)", recorded=0.68),),
    ),
    Benchmark(
        command=("backfill.py", "--windows", "40", "--dags", *_ROWS),
        figures=(
            Figure(name="creating, wall time by hand", pattern=_row("creating", 3), recorded=1.4),
            Figure(name="creating, processor time by hand", pattern=_row("creating", 4), recorded=2.2),
            # A fifth more is 2.5, the limit for a creating task.
            Figure(name="creating, requests", pattern=_row("creating", 6), recorded=2.05),
            Figure(name="waiting, wall time by hand", pattern=_row("waiting", 3), recorded=1.45),
            Figure(name="waiting, processor time by hand", pattern=_row("waiting", 4), recorded=2.1),
        ),
    ),
)


def main() -> int:
    """Run the benchmarks and print each figure; return 1 if one is worse than allowed or missing, else 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="only the benchmarks that need less than a minute")
    options = parser.parse_args()
    passed = True
    print("| figure | measured | recorded | allowed |")
    print("| --- | --- | --- | --- |", flush=True)
    for benchmark in FIGURES:
        if benchmark.is_quick or not options.quick:
            passed &= _measure(benchmark)
    return int(not passed)


def _measure(benchmark: Benchmark) -> bool:
    """Run a benchmark and print its figures; return whether it succeeded and each figure is met."""
    done = _run(benchmark.command)
    output = done.stdout
    values = [(figure, figure.read(output)) for figure in benchmark.figures]
    for figure, value in values:
        shown = "missing" if value is None else f"{value:.3g}"
        mark = "" if figure.is_met(value) else " WORSE"
        allowed = figure.recorded * figure.factor
        print(f"| {figure.name} | {shown} | {figure.recorded:.3g} | {allowed:.3g}{mark} |", flush=True)
    passed = done.returncode == 0 and all(figure.is_met(value) for figure, value in values)
    if not passed:
        print(f"{' '.join(benchmark.command)} ended with status {done.returncode}:", file=sys.stderr)
        print(output[-4000:], done.stderr[-4000:], sep="\n", file=sys.stderr, flush=True)
    return passed


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "AIRFLOW_HOME": home, "PYTHONPATH": str(FOLDER.parent)}
        line = [sys.executable, str(FOLDER / command[0]), *command[1:]]
        return subprocess.run(line, env=environment, capture_output=True, text=True, timeout=3600, check=False)


if __name__ == "__main__":
    sys.exit(main())
