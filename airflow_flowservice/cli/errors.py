"""What ends a command before it has anything to show."""

from __future__ import annotations


class CommandError(Exception):
    """There is nothing to show; the message says why, and what to do. Exit status 2."""
