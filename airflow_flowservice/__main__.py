# SPDX-License-Identifier: Apache-2.0
"""Run the commands of `airflow flowservice ...` in every version of Airflow: `python -m airflow_flowservice ...`."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from typing import Any

from airflow_flowservice.cli import get_flowservice_cli_commands


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command, which raises SystemExit with its exit status."""
    options = _parser().parse_args(arguments)
    options.func(options)


def _parser() -> argparse.ArgumentParser:
    group: Any = get_flowservice_cli_commands()[0]
    parser = argparse.ArgumentParser(prog="python -m airflow_flowservice", description=f"{group.help}.")
    _add_commands(parser, group.subcommands)
    return parser


def _add_commands(parser: argparse.ArgumentParser, commands: Iterable[Any]) -> None:
    subparsers = parser.add_subparsers(dest="subcommand", metavar="COMMAND", required=True)
    for command in commands:
        subparser = subparsers.add_parser(
            command.name, help=command.help, description=command.description, epilog=command.epilog
        )
        if hasattr(command, "subcommands"):
            _add_commands(subparser, command.subcommands)
            continue
        for argument in command.args:
            argument.add_to_parser(subparser)
        subparser.set_defaults(func=command.func)


if __name__ == "__main__":
    main()
