# SPDX-License-Identifier: Apache-2.0
"""Command `python -m airflow_flowservice.emulator`: serve the emulator in the foreground, on 127.0.0.1."""

from __future__ import annotations

import argparse
import sys
from typing import get_args

from airflow_flowservice.emulator import settings as allowed_values
from airflow_flowservice.emulator.settings import Settings

DEFAULT_PORT = 8710


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return the exit status of the process."""
    parser = _parser()
    options = vars(parser.parse_args(arguments))
    port = options.pop("port")
    try:
        settings = Settings(**options)
    except ValueError as error:
        parser.error(str(error))
    try:
        from airflow_flowservice.emulator.server import serve
    except ModuleNotFoundError as error:
        print(f"{error}. Install it with: pip install 'airflow-flowservice[emulator]'", file=sys.stderr)
        return 1
    try:
        serve(settings, port=port)
    except OSError as error:
        print(f"Cannot listen on 127.0.0.1:{port}: {error.strerror}. Choose another --port.", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m airflow_flowservice.emulator",
        description="Emulate Adobe Flow Service and IMS on 127.0.0.1, for demos and tests.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    defaults = Settings()
    add = parser.add_argument
    add("--port", type=int, default=DEFAULT_PORT, help="TCP port; 0 selects a free port")
    choices = (
        ("--answer-shape", "answer_shape", allowed_values.AnswerShape, "response format of a created run"),
        ("--show-window", "show_window", allowed_values.ShowWindow, "where a flow run shows its window"),
        ("--error-shape", "error_shape", allowed_values.ErrorShape, "format of Flow Service's error bodies"),
        ("--epoch-format", "epoch_format", allowed_values.EpochFormat, "JSON type of epoch seconds in POST /runs"),
        ("--epoch-refusal", "epoch_refusal", allowed_values.EpochRefusal, "response to another JSON type"),
        ("--retrigger-action", "retrigger_action", allowed_values.RetriggerAction, "accepted name of the action"),
    )
    for flag, name, allowed, text in choices:
        add(flag, dest=name, choices=get_args(allowed), default=getattr(defaults, name), help=text)
    numbers = (
        ("--queue-seconds", "queue_s", "how long a flow run is scheduled"),
        ("--run-seconds", "run_s", "how long a flow run is then in progress"),
        ("--batch-seconds", "batch_s", "how long a batch is then staged in the catalogue"),
        ("--update-seconds", "update_s", "how long the first flow run updates a table-based dataflow"),
        ("--start-tolerance", "start_tolerance_s", "how far startTime may lie in the past"),
        ("--token-ttl", "token_ttl_s", "how long a token is valid"),
        ("--clock-offset", "clock_offset_s", "how far the emulator's clock is ahead"),
    )
    for flag, name, text in numbers:
        add(flag, dest=name, type=float, default=getattr(defaults, name), metavar="SECONDS", help=text)
    ceilings = (
        ("--max-flow-runs", "max_flow_runs", "the most flow runs of a dataflow in flight; 429 beyond it"),
        ("--max-sandbox-runs", "max_sandbox_runs", "the most flow runs of all dataflows in flight; 429 beyond it"),
    )
    for flag, name, text in ceilings:
        add(flag, dest=name, type=int, default=getattr(defaults, name), metavar="NUMBER", help=text)
    return parser


if __name__ == "__main__":
    sys.exit(main())
