# SPDX-License-Identifier: Apache-2.0
"""Search for secrets in a text, in all common encodings."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

# Number of characters at the beginning or end of a secret that count as a leak.
_MIN_LEAK_LENGTH = 16


def encodings_of(secret: str) -> set[str]:
    """Return the secret as plain text, URL-encoded, as JSON, in hexadecimal and in base64, and each reversed.

    The base64 encodings include each of the three possible offsets of the secret in the encoded data.
    """
    data = secret.encode()
    forms = {secret, quote(secret, safe=""), quote(secret), quote_plus(secret), json.dumps(secret)[1:-1], data.hex()}
    for offset in range(3):
        # Omit the first and last characters, because they also depend on the adjacent data.
        skipped, whole = (0, 2, 3)[offset], (offset + len(data)) * 8 // 6
        encoded = base64.b64encode(b"x" * offset + data).decode()[skipped:whole]
        forms |= {encoded, encoded.translate(str.maketrans("+/", "-_"))}
    return forms | {form[::-1] for form in forms}


def leaks(text: str, secrets: Iterable[str]) -> list[str]:
    """Return the beginnings and ends of secrets that the text contains in any encoding.

    Beginnings and ends are sufficient, because messages may be truncated.
    """
    ends = {
        end
        for secret in secrets
        for form in encodings_of(secret)
        for end in (form[:_MIN_LEAK_LENGTH], form[-_MIN_LEAK_LENGTH:])
    }
    return sorted(end for end in ends if end in text)
