# SPDX-License-Identifier: Apache-2.0
"""Test the DAG file that `airflow flowservice flows --output dag` prints."""

from __future__ import annotations

import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_flowservice.api.models import Flow
from airflow_flowservice.cli.flows_command import ListedFlow, dag_file_of

# Also lone surrogates, which JSON can contain.
TEXTS = st.text(st.characters(), max_size=20)


def arguments_of(file: str) -> tuple[dict[str, dict[str, str]], str]:
    """Return the dictionary of a DAG file and the connection of its tasks, as Python reads them."""
    tree = ast.parse(file)
    (dataflows,) = [node.value for node in tree.body if isinstance(node, ast.Assign)]
    (conn_id,) = [
        node.value for node in ast.walk(tree) if isinstance(node, ast.keyword) and node.arg == "flowservice_conn_id"
    ]
    return ast.literal_eval(dataflows), ast.literal_eval(conn_id)


@given(st.lists(st.builds(Flow, id=TEXTS, name=TEXTS, state=TEXTS, frequency=TEXTS), min_size=1, max_size=3), TEXTS)
def test_any_text_is_a_literal_of_the_file(flows: list[Flow], conn_id: str) -> None:
    """Ids are the same in Python, and names stay in their comments."""
    file = dag_file_of([ListedFlow(flow=flow, source=None, needs_delta_column=True) for flow in flows], conn_id=conn_id)
    assert file.isascii()
    found, connection = arguments_of(file)
    assert conn_id == connection
    assert {flow.id for flow in flows} == {arguments["flow_id"] for arguments in found.values()}


@pytest.mark.parametrize("text", ["\U0001f600", "\ud83d", 'a"\\\n', "ä"], ids=ascii)
def test_characters_that_json_and_python_escape_in_different_ways(text: str) -> None:
    file = dag_file_of([ListedFlow(flow=Flow(id=text), source=None, needs_delta_column=False)], conn_id=text)
    found, connection = arguments_of(file)
    assert ([{"flow_id": text}], text) == ([*found.values()], connection)
