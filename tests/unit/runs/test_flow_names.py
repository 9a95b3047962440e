# SPDX-License-Identifier: Apache-2.0
"""A dataflow's name is resolved to exactly one id, or to an error that lists candidates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from airflow_flowservice.api.models import Flow
from airflow_flowservice.api.shared_cache import SharedCache
from airflow_flowservice.exceptions import FlowNameError
from airflow_flowservice.runs import flow_names
from airflow_flowservice.runs.flow_names import FlowNames


@pytest.fixture(autouse=True)
def _new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_names, "_found", {})


class Sandbox:
    """Dataflows by id, with the number of lists that were requested."""

    def __init__(self, names: dict[str, str | None]) -> None:
        self.names = names
        self.lists = 0

    def list(self) -> list[Flow]:
        self.lists += 1
        return [Flow.parse({"id": each, "name": name, "state": "enabled"}) for each, name in self.names.items()]

    def find(self, name: str, **fields: Any) -> str:
        values = {"scope": ("dev",), "list_flows": self.list, "cache": None, "sandbox": "dev", **fields}
        return FlowNames(**values).find(name)


def test_only_dataflow_with_the_name() -> None:
    assert "b" == Sandbox({"a": "Orders 2", "b": "Orders", "c": None}).find("Orders")


@pytest.mark.parametrize("name", ["[PROD] Orders", "{{ x }}", "Bestellungen für Ä", "a" * 500])
def test_name_can_have_any_characters(name: str) -> None:
    assert "a" == Sandbox({"a": f" {name} ", "b": "other"}).find(name)


def test_unknown_name_lists_similar_ones_with_their_ids() -> None:
    """The comparison is exact, so another case is an error with a hint."""
    with pytest.raises(FlowNameError) as raised:
        Sandbox({"a": "Orders", "b": "Clicks"}).find("orders")
    assert (
        "no dataflow of sandbox dev has the name 'orders'; similar names: a ('Orders', enabled)"
    ) == raised.value.message
    assert not raised.value.retryable


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("clicks", "similar names: b ('Clicks (files, one-time)', enabled)"),
        ("xyz", "its dataflows: a ('Orders', enabled), b ('Clicks (files, one-time)', enabled)"),
    ],
)
def test_unknown_name_lists_candidates_without_a_similar_one(name: str, hint: str) -> None:
    with pytest.raises(FlowNameError) as raised:
        Sandbox({"a": "Orders", "b": "Clicks (files, one-time)"}).find(name)
    assert f"no dataflow of sandbox dev has the name {name!r}; {hint}" == raised.value.message


def test_ambiguous_name_lists_the_ids() -> None:
    with pytest.raises(FlowNameError, match=r"2 dataflows of sandbox dev have the name 'Orders': a \(.*\), b \(.*\)"):
        Sandbox({"a": "Orders", "b": "Orders"}).find("Orders")


def test_list_of_candidates_is_bounded() -> None:
    with pytest.raises(FlowNameError, match="and 490 more"):
        Sandbox({str(number): "Orders" for number in range(500)}).find("Orders")


def test_text_of_flow_service_is_cleaned() -> None:
    with pytest.raises(FlowNameError) as raised:
        Sandbox({"a": "orders\x1b[31m\n"}).find("orders?")
    assert raised.value.message.isprintable()


def test_found_id_is_used_again_in_the_process() -> None:
    sandbox = Sandbox({"a": "Orders"})
    assert ["a", "a"] == [sandbox.find("Orders"), sandbox.find("Orders")]
    assert 1 == sandbox.lists


def test_other_sandbox_is_searched_separately() -> None:
    """The same DAG is promoted by its connection."""
    assert "a" == Sandbox({"a": "Orders"}).find("Orders")
    assert "b" == Sandbox({"b": "Orders"}).find("Orders", scope=("prod",))


def test_error_is_not_remembered() -> None:
    """A user creates the dataflow, and clears the task."""
    sandbox = Sandbox({})
    with pytest.raises(FlowNameError):
        sandbox.find("Orders")
    sandbox.names["a"] = "Orders"
    assert "a" == sandbox.find("Orders")


def test_found_id_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox = Sandbox({"a": "Orders"})
    sandbox.find("Orders")
    sandbox.names = {"b": "Orders"}
    monkeypatch.setattr(flow_names, "_MAX_AGE_S", -1.0)
    assert "b" == sandbox.find("Orders")


def test_processes_share_a_found_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow runs each task in a new process."""
    sandbox, cache = Sandbox({"a": "Orders"}), SharedCache(str(tmp_path / "cache"))
    for _ in range(3):
        monkeypatch.setattr(flow_names, "_found", {})
        assert "a" == sandbox.find("Orders", cache=cache)
    assert 1 == sandbox.lists
