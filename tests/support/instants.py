"""Instants as JSON has them."""

from __future__ import annotations

from datetime import datetime


def instant(text: str) -> datetime:
    """Out of ISO 8601; Python 3.10 does not read the `Z`."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))
