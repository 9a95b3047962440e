# SPDX-License-Identifier: Apache-2.0
"""The pages state the XComs, the statuses, the options and the exit statuses of the code, and no others."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator

import pytest
from pages import PAGES

from airflow_flowservice import __main__
from airflow_flowservice._airflow import task_context
from airflow_flowservice.api.flow_runs import FlowRunStatus
from airflow_flowservice.runs import summary

COMMAND_LINE = PAGES["docs/command-line.md"]
# `--help` describes itself, and `--json` is an alias.
UNIVERSAL = {"--help", "-h", "--json", "--output", "-o", "--verbose"}


def parsers(parser: argparse.ArgumentParser, name: str = "") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yield each command without subcommands, with its name."""
    nested = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not nested:
        yield name, parser
    for action in nested:
        for key, each in action.choices.items():
            yield from parsers(each, f"{name} {key}".strip())


COMMANDS = dict(parsers(__main__._parser()))


def options(parser: argparse.ArgumentParser) -> set[str]:
    return {option for action in parser._actions for option in action.option_strings}


def test_each_status_of_the_xcom_is_documented() -> None:
    section = PAGES["docs/operators.md"].partition("## Results of a task")[2].partition("\n## ")[0]
    statuses = {status.value for status in FlowRunStatus} | {summary.CREATED, summary.UNKNOWN, summary.ENDED_UNCLEAR}
    assert set() == {status for status in statuses if f"`{status}`" not in section}


@pytest.mark.parametrize(
    "key", [task_context.URL_KEY, task_context.DATAFLOW_KEY, "flow_run", "flow_runs", "return_value"]
)
def test_each_xcom_is_documented(key: str) -> None:
    assert f"`{key}`" in PAGES["docs/operators.md"]


@pytest.mark.parametrize("command", COMMANDS)
def test_each_option_is_documented(command: str) -> None:
    """The long name of each option is on the page of the command line."""
    known = {option for option in options(COMMANDS[command]) if option.startswith("--")} - UNIVERSAL
    assert set() == {option for option in known if option not in COMMAND_LINE}


def test_each_documented_option_exists() -> None:
    """Options of Airflow's own commands are exceptions."""
    of_airflow = {"--reprocess-behavior"}
    known = {option for parser in COMMANDS.values() for option in options(parser)} | of_airflow
    assert set() == set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", COMMAND_LINE)) - known


@pytest.mark.parametrize("command", COMMANDS)
def test_help_states_the_exit_statuses(command: str) -> None:
    """`--help` has the exit statuses that a monitor can rely on."""
    assert "Exit status:" in " ".join(COMMANDS[command].format_help().split())
