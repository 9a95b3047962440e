# SPDX-License-Identifier: Apache-2.0
"""Help of each command: it has examples, and an option means the same in each command."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator

import pytest

from airflow_flowservice.__main__ import _parser

RANGE = {
    "--from": "start of a range of time, inclusive; default time zone: that of Airflow",
    "--to": "end of the range, exclusive",
}


def _commands(
    parser: argparse.ArgumentParser, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], argparse.ArgumentParser]]:
    """Yield the words and the parser of each command below a parser."""
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not groups:
        yield path, parser
    for group in groups:
        for name, child in group.choices.items():
            yield from _commands(child, (*path, name))


COMMANDS = dict(_commands(_parser()))


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_each_command_has_an_example_that_it_accepts(command: tuple[str, ...]) -> None:
    """The help has examples, and the command's own parser accepts their options."""
    text = " ".join((COMMANDS[command].epilog or "").split())
    examples = re.findall(rf"`airflow flowservice {' '.join(command)}((?: [^`]+)?)`", text)
    assert examples
    for example in examples:
        words = shlex.split(example.partition(" > ")[0])
        assert callable(_parser().parse_args([*command, *words]).func)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_options_mean_the_same_in_each_command(command: tuple[str, ...]) -> None:
    """`--from`, `--to`, `--dag-id`, `--task-id` and `--output` mean the same in each command that has them."""
    options = {name: action for action in COMMANDS[command]._actions for name in action.option_strings}
    for name, help_text in RANGE.items():
        assert name not in options or help_text == options[name].help
    assert ("--from" in options) == ("--to" in options)
    for short, name in (("-d", "--dag-id"), ("-t", "--task-id")):
        assert name not in options or options[name] is options[short]
    assert {"table", "json", "yaml", "plain"} <= set(options["--output"].choices or ())
