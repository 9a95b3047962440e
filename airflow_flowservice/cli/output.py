# SPDX-License-Identifier: Apache-2.0
"""Output of the commands: formats on standard output; notes, errors and logs on standard error."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from typing import TYPE_CHECKING, Any

from airflow_flowservice.plain_text import clean_text

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from datetime import datetime, tzinfo

    from rich.console import Console

_RIGHT_ALIGNED = frozenset({"length", "windows", "rows"})
_WRAPPED = frozenset({"note", "message"})
# Wide enough for a row of any length, so that ids stay whole in a file or a pipe.
_UNLIMITED_WIDTH = 1000


class CommandError(Exception):
    """Error of a command that has nothing to show. The message states cause and remedy; the exit status is 2."""


def write_error(error: CommandError) -> None:
    """Write the message to standard error."""
    sys.stderr.write(f"Error: {_clean_lines(str(error))}\n")


def write_note(text: str) -> None:
    """Write a note to standard error."""
    sys.stderr.write(f"Note: {_clean_lines(text)}\n")


def _clean_lines(text: str) -> str:
    return "\n".join(clean_text(line, length=None) for line in text.split("\n"))


def output_format(arguments: argparse.Namespace) -> str:
    """Return `table`, `json`, `yaml` or `plain`; `--json` is a deprecated alias of `--output json`."""
    if arguments.as_json:
        write_note("--json is deprecated; use --output json")
        return "json"
    return str(arguments.output)


def write_document(document: Any, *, output: str) -> None:
    """Write JSON values to standard output.

    :param output: `json` or `yaml`.
    """
    if output == "yaml":
        airflow_console().print_as_yaml(document)
    else:
        sys.stdout.write(f"{json.dumps(document, indent=2)}\n")


def airflow_console(**options: Any) -> Any:
    """Return Airflow's console for standard output. It prints text literally, without Rich's markup.

    :param options: keyword arguments of `rich.console.Console`.
    """
    from airflow.cli.simple_table import AirflowConsole

    created = AirflowConsole(markup=False, highlight=False, emoji=False, **options)
    if not created.is_terminal:
        created.width = _UNLIMITED_WIDTH
    return created


def print_rows(console: Any, rows: Sequence[dict[str, Any]], *, output: str = "table") -> None:
    """Print rows as Airflow's commands do.

    :param console: of `airflow_console`.
    :param rows: strings or `rich.text.Text` by column; all rows have the same columns.
    :param output: `table` or `plain`.
    """
    cleaned = [{name: _clean_cell(value) for name, value in row.items()} for row in rows]
    if output == "plain" or not rows:
        console.print_as_plain_table([{name: str(value) for name, value in row.items()} for row in cleaned])
        return
    from airflow.cli import simple_table

    create_table: Any = simple_table.SimpleTable
    table = create_table(show_header=True)
    for name in rows[0]:
        table.add_column(
            name, no_wrap=name not in _WRAPPED, overflow="fold", justify="right" if name in _RIGHT_ALIGNED else "left"
        )
    for row in cleaned:
        table.add_row(*row.values())
    console.print(table)


def _clean_cell(value: Any) -> Any:
    # Ids of DAG runs and the connection's keys can contain any character. A `rich.text.Text` is this package's.
    return clean_text(value, length=None) if isinstance(value, str) else value


def print_line(console: Console, text: Any = "") -> None:
    """Print a line without wrapping it."""
    console.print(_clean_cell(text), soft_wrap=True)


def shortest_format(instants: Iterable[datetime], *, zone: tzinfo) -> Callable[[datetime], str]:
    """Return a formatter for the instants: dates if all are midnights, or else times up to minutes or seconds."""
    times = {instant.astimezone(zone).strftime("%H:%M:%S") for instant in instants}
    if times == {"00:00:00"}:
        pattern = "%Y-%m-%d"
    else:
        pattern = "%Y-%m-%d %H:%M" if all(time.endswith(":00") for time in times) else "%Y-%m-%d %H:%M:%S"
    return lambda instant: instant.astimezone(zone).strftime(pattern)


@contextlib.contextmanager
def quiet_retries() -> Iterator[None]:
    """Suppress urllib3's warnings about single attempts; the command reports the final result."""
    logger = logging.getLogger("urllib3")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def quiet_stdout() -> Iterator[None]:
    """Redirect the output of DAG files and the logs of Airflow from standard output to standard error."""
    import airflow.settings  # noqa: F401 configures logging

    stdout = sys.stdout
    # Before 3.1, Airflow's handlers look up sys.stdout each time instead of keeping it.
    handlers: list[Any] = [handler for handler in logging.getLogger().handlers if vars(handler).get("stream") is stdout]
    for handler in handlers:
        handler.setStream(sys.stderr)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        for handler in handlers:
            handler.setStream(stdout)
