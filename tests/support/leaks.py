"""Finds secrets in a text, in every spelling that a leak may have."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

_ENOUGH = 16


def spellings(secret: str) -> set[str]:
    """As it is, in URLs, in JSON, in hexadecimal, in base64 wherever it begins, and each of these backwards."""
    data = secret.encode()
    forms = {secret, quote(secret, safe=""), quote(secret), quote_plus(secret), json.dumps(secret)[1:-1], data.hex()}
    for before in range(3):
        # What stands before shares its first characters, and what follows its last ones.
        skipped, whole = (0, 2, 3)[before], (before + len(data)) * 8 // 6
        encoded = base64.b64encode(b"x" * before + data).decode()[skipped:whole]
        forms |= {encoded, encoded.translate(str.maketrans("+/", "-_"))}
    return forms | {form[::-1] for form in forms}


def leaks(text: str, secrets: Iterable[str]) -> list[str]:
    """The beginnings and ends of secrets that a text has in any spelling: messages are cut, and cut leaks are leaks."""
    ends = {end for secret in secrets for form in spellings(secret) for end in (form[:_ENOUGH], form[-_ENOUGH:])}
    return sorted(end for end in ends if end in text)
