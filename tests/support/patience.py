# SPDX-License-Identifier: Apache-2.0
"""Wait for a real Airflow."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(condition: Callable[[], T | None], *, what: str, timeout: float = 240) -> T:
    """Call a condition until its result is true, and return the result; fail after a time limit."""
    deadline = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {timeout:.0f} s for {what}"
        time.sleep(0.3)
    return found
