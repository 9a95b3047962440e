# SPDX-License-Identifier: Apache-2.0
"""Table of the decisions of `create_once`, and its drawing in the documentation."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_flowservice.runs.creation_states import FINAL, INITIAL, TRANSITIONS, CreationEvent, CreationState

PAGE = Path(__file__).parents[3] / "docs" / "guarantees.md"


def drawing() -> str:
    """Return the table as text: state, event, next state."""
    state_width = max(len(state.value) for state in TRANSITIONS)
    event_width = max(len(event.value) for event in CreationEvent)
    lines = []
    for state, branches in TRANSITIONS.items():
        for index, (event, target) in enumerate(branches.items()):
            name, fork = (f"{state.value} ".ljust(state_width + 2, "─"), "┬─")
            if index > 0:
                is_last = index == len(branches) - 1
                name, fork = " " * len(name), "└─" if is_last else "├─"
            lines.append(f"{name}{fork} {f'{event.value} '.ljust(event_width + 2, '─')}> {target.value}")
    return "\n".join(lines)


def test_the_documentation_shows_the_table() -> None:
    """The drawing in docs/guarantees.md is that of the table."""
    assert drawing() in PAGE.read_text()


def test_each_state_is_final_or_has_transitions() -> None:
    assert set(TRANSITIONS) | FINAL == set(CreationState)
    assert not set(TRANSITIONS) & FINAL


def test_each_event_is_used() -> None:
    assert {event for branches in TRANSITIONS.values() for event in branches} == set(CreationEvent)


def test_each_state_is_reachable() -> None:
    reached = {INITIAL}
    while new := {target for state in reached - FINAL for target in TRANSITIONS[state].values()} - reached:
        reached |= new
    assert reached == set(CreationState)


@pytest.mark.parametrize(
    "state", [state for state, branches in TRANSITIONS.items() if CreationState.CREATED in branches.values()]
)
def test_an_unknown_outcome_is_never_repeated_without_a_comparison(state: CreationState) -> None:
    """After a POST with an unknown outcome, the flow runs are compared, or the attempt fails."""
    assert TRANSITIONS[state][CreationEvent.UNKNOWN] is CreationState.COMPARE
    assert TRANSITIONS[state][CreationEvent.UNKNOWN_AGAIN] is CreationState.FAILED
