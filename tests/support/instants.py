# SPDX-License-Identifier: Apache-2.0
"""Parse instants in JSON."""

from __future__ import annotations

from datetime import datetime


def instant(text: str) -> datetime:
    """Parse ISO 8601 text; Python 3.10 does not accept the `Z`."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))
