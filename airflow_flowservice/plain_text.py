# SPDX-License-Identifier: Apache-2.0
"""Text from outside as bounded, printable text: for logs, errors, XComs, events, commands and the page.

A cleaned text has no control characters, line breaks, escape sequences or lone surrogates. PostgreSQL and MySQL
(utf8mb4) can store it, and it takes one line in a log and in a terminal.
"""

from __future__ import annotations

import re
from collections.abc import Sequence, Set
from typing import Any

TEXT_LENGTH = 1000
"""Limit of a name or a message, in characters."""
ID_LENGTH = 200
"""Limit of an id, a code, a state or a status, in characters. A longer value is no valid id, even after the cut."""
ERROR_LENGTH = 10_000
"""Limit of the message of a `FlowServiceError`, in characters."""
URL_LENGTH = 2000
"""Limit of an address, in characters."""

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE | re.ASCII)
_UNPRINTABLE = "\N{REPLACEMENT CHARACTER}"
_LIST_TEXTS = ("[", "(", "LazyXComSequence(")


def clean_text(text: str, *, length: int | None = TEXT_LENGTH) -> str:
    """Return printable text of at most `length` characters.

    White space becomes a space, and any other unprintable character U+FFFD. A cut text ends with an ellipsis.
    An identifier never contains one of these three, so a changed id is refused instead of used.

    :param length: None to only replace characters.
    """
    if length is not None and len(text) > length:
        text = f"{text[: length - 1]}…"
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else " " if each.isspace() else _UNPRINTABLE for each in text)


def canonical_id(text: str) -> str:
    """Return an id of Flow Service without blanks around; a UUID in lower case, as Adobe writes it.

    Otherwise, the ledger and the comparison with lists of flow runs would not recognize it.
    """
    stripped = text.strip()
    return stripped.lower() if _UUID.fullmatch(stripped) else stripped


def remedy_for_list(value: Any) -> str:
    """Return the end of the remedy for a field whose template rendered to a list, or to its text; else empty text.

    The output of a mapped task renders to a list.
    """
    is_text = isinstance(value, str)
    is_list = value.lstrip().startswith(_LIST_TEXTS) if is_text else isinstance(value, Sequence | Set)
    if not is_list or isinstance(value, bytes):
        return ""
    return "; a mapped task returns a list, so name one value by map_indexes, or expand this task over `.output`"
