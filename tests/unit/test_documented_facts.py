# SPDX-License-Identifier: Apache-2.0
"""Statements of the documentation about defaults and about the emulator are those of the code."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_flowservice.emulator.settings import Settings
from airflow_flowservice.emulator.state import EmulatorState
from airflow_flowservice.freshness import FlowFreshnessSensor
from airflow_flowservice.operators import OnDemandFlowRunOperator, RetriggerFlowRunOperator

DOCS = Path(__file__).parents[2] / "docs"


# Defaults that the tables describe in words.
IN_WORDS = {
    "flow_id": None,
    "flow_name": None,
    "window_start": None,
    "window_end": None,
    "window_offset": None,
    "start_time": None,
    "deferrable": None,
    "wait_timeout": None,
    "max_failed_records": None,
    "max_failed_ratio": None,
    "ask_notifiers": (),
    "lookback": None,
    "max_lag": inspect.Parameter.empty,
}


def tables(page: str, header: str) -> list[list[list[str]]]:
    """Return each table with a header; a table is a list of rows, and a row a list of cells."""
    blocks = re.findall(rf"^{re.escape(header)}\n\| ---.*\n((?:\|.*\n)+)", (DOCS / page).read_text(), flags=re.M)
    return [[[cell.strip() for cell in row.strip("|").split(" | ")] for row in block.splitlines()] for block in blocks]


def documented(rows: list[list[str]]) -> Iterator[tuple[str, str]]:
    """Yield each parameter of a table with its default; a row can have several parameters."""
    for names, default, *_ in rows:
        for name in re.findall(r"`(\w+)`", names):
            yield name, default


def constructor_defaults(cls: type) -> dict[str, Any]:
    """Return the default of each parameter of a class's constructors."""
    found: dict[str, Any] = {}
    for each in reversed(cls.__mro__):
        if each.__module__.startswith("airflow_flowservice") and "__init__" in vars(each):
            found |= {name: it.default for name, it in inspect.signature(each.__init__).parameters.items()}
    return found


@pytest.mark.parametrize(
    ("number", "classes"),
    [(0, [OnDemandFlowRunOperator]), (1, [OnDemandFlowRunOperator, RetriggerFlowRunOperator])],
    ids=["on demand", "both operators"],
)
def test_defaults_of_parameters(number: int, classes: list[type]) -> None:
    found = dict(documented(tables("operators.md", "| parameter | default | meaning |")[number]))
    assert 8 < len(found)
    for cls in classes:
        actual = constructor_defaults(cls)
        assert {name: shown(text, name) for name, text in found.items()} == {name: actual[name] for name in found}


def test_defaults_of_the_freshness_sensor() -> None:
    found = dict(documented(tables("alerts.md", "| parameter | default | meaning |")[0]))
    actual = constructor_defaults(FlowFreshnessSensor)
    assert set(actual) - {"self", "kwargs"} == set(found)
    assert {name: shown(text, name) for name, text in found.items()} == {name: actual[name] for name in found}


def shown(text: str, name: str) -> Any:
    """Return the documented default as a value; a parameter without one is required."""
    if not text:
        return inspect.Parameter.empty
    if name in IN_WORDS:
        return IN_WORDS[name]
    value = text.strip("`")
    known = {"None": None, "True": True, "False": False, "()": ()}
    if value in known:
        return known[value]
    return float(value) if value.isdigit() else value


def test_parameters_without_a_row() -> None:
    """Every parameter of the operators has a row, or the page names it in another place."""
    page = (DOCS / "operators.md").read_text()
    for cls in (OnDemandFlowRunOperator, RetriggerFlowRunOperator):
        names = set(constructor_defaults(cls)) - {"self", "kwargs"}
        assert set() == {name for name in names if f"`{name}`" not in page}


def test_dataflows_of_the_emulator() -> None:
    (rows,) = tables("testing-your-dags.md", "| dataflow | source |")
    assert {row[0].strip("`") for row in rows} == set(EmulatorState(Settings()).flows)
