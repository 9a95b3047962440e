# SPDX-License-Identifier: Apache-2.0
"""Tests of `leaks`, the search for secrets that other tests use."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote, urlencode

import pytest
from leaks import leaks

SECRET = "e2e p@ss/w+rd&x=0123456789abcdef0123456789"
TOKEN = "Zm9v-YmFyYmF6_cXV1eHF1dXV4cXV1dXV4Y29yZ2VncmF1bHRnYXJwbHl3YWxkbw"


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize("secret", [SECRET, TOKEN])
@pytest.mark.parametrize(
    "encode",
    [
        lambda secret: f"Authorization: Bearer {secret}",
        lambda secret: secret[:20] + "…",
        lambda secret: "… " + secret[-20:],
        lambda secret: urlencode({"client_secret": secret}),
        lambda secret: quote(secret),
        lambda secret: json.dumps({"body": json.dumps({"secret": secret})}),
        lambda secret: secret.encode().hex(),
        lambda secret: _base64(secret),
        lambda secret: _base64(f"x{secret}"),
        lambda secret: _base64(f"client:{secret}, and more"),
        lambda secret: base64.urlsafe_b64encode(f"ab{secret}".encode()).decode(),
        lambda secret: secret[::-1],
        lambda secret: _base64(secret)[::-1],
    ],
)
def test_leak_is_found(encode, secret):
    """A secret is found in each encoding, complete or truncated."""
    assert [] != leaks(f"before {encode(secret)} after", [secret])


def test_masked_and_similar_texts_are_no_leaks():
    """A masked secret and a similar text are not leaks."""
    assert [] == leaks(f"Bearer ***, client_secret=***&x, {TOKEN.swapcase()}", [SECRET, TOKEN])
