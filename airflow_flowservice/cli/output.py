"""Standard output is for what a command shows, standard error for all the rest."""

from __future__ import annotations

import contextlib
import logging
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


def first_line(value: object) -> str:
    """The first line of what something says."""
    return str(value).strip().partition("\n")[0]


def remark(text: str) -> None:
    """Say something beside what is shown."""
    sys.stderr.write(f"Note: {text}\n")


@contextlib.contextmanager
def quiet_retries() -> Iterator[None]:
    """What `urllib3` logs of each attempt, with a traceback, is left out: the command tells the outcome."""
    logger = logging.getLogger("urllib3")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def quiet_stdout() -> Iterator[None]:
    """What DAG files print, and what Airflow logs, goes to standard error."""
    import airflow.settings  # noqa: F401 sets logging up

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
