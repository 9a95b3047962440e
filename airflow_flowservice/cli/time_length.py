# SPDX-License-Identifier: Apache-2.0
"""Lengths of time in the arguments of commands, such as `26h`."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import timedelta

from airflow_flowservice.cli.output import CommandError

_LONGEST = timedelta(days=20 * 366)
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_LENGTH = re.compile(r"(\d{1,9})([mhdw])", re.ASCII)


def length_of(text: str, *, name: str) -> timedelta:
    """Parse a length of time.

    :param name: name of the option without its dashes, for the error.
    :raises CommandError: the text is no length of time between one minute and 20 years.
    """
    found, length = _LENGTH.fullmatch(text.strip()), timedelta(0)
    with suppress(OverflowError):
        length = timedelta(**{_UNITS[found[2]]: int(found[1])}) if found else length
    if not timedelta(0) < length <= _LONGEST:
        raise CommandError(f"--{name} is no length of time: give a number and m, h, d or w, such as 26h or 7d")
    return length
