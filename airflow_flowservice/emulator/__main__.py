"""`python -m airflow_flowservice.emulator`: serve the emulator in the foreground, on 127.0.0.1 only."""

from __future__ import annotations

import argparse
import sys
from typing import get_args

from airflow_flowservice.emulator import settings as options
from airflow_flowservice.emulator.settings import Settings

DEFAULT_PORT = 8710


def main(arguments: list[str] | None = None) -> int:
    """Run the command; the answer is the process's exit status."""
    parser = _parser()
    asked = vars(parser.parse_args(arguments))
    port = asked.pop("port")
    try:
        settings = Settings(**asked)
    except ValueError as error:
        parser.error(str(error))
    try:
        from airflow_flowservice.emulator.server import serve
    except ModuleNotFoundError as error:
        print(f"{error}; install it with: pip install 'airflow-flowservice[emulator]'", file=sys.stderr)
        return 1
    try:
        serve(settings, port=port)
    except OSError as error:
        print(f"cannot listen on 127.0.0.1:{port}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m airflow_flowservice.emulator",
        description="Adobe Flow Service and IMS on 127.0.0.1, for demos and tests.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    born = Settings()
    add = parser.add_argument
    add("--port", type=int, default=DEFAULT_PORT, help="0 chooses a free one")
    words = (
        ("--answer-shape", "answer_shape", options.AnswerShape, "how a created run is answered"),
        ("--show-window", "show_window", options.ShowWindow, "where a run that is read shows its window"),
        ("--error-shape", "error_shape", options.ErrorShape, "the body of Flow Service's errors"),
        ("--epoch-format", "epoch_format", options.EpochFormat, "JSON type of epoch seconds in a creation"),
    )
    for flag, name, allowed, text in words:
        add(flag, dest=name, choices=get_args(allowed), default=getattr(born, name), help=text)
    numbers = (
        ("--queue-seconds", "queue_s", "how long a run is scheduled"),
        ("--run-seconds", "run_s", "how long it is in progress after that"),
        ("--start-tolerance", "start_tolerance_s", "how many seconds ago startTime may be"),
        ("--token-ttl", "token_ttl_s", "how many seconds a token is valid"),
        ("--clock-offset", "clock_offset_s", "how many seconds the emulator's clock is ahead"),
    )
    for flag, name, text in numbers:
        add(flag, dest=name, type=float, default=getattr(born, name), metavar="SECONDS", help=text)
    return parser


if __name__ == "__main__":
    sys.exit(main())
