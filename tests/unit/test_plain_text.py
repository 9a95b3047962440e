# SPDX-License-Identifier: Apache-2.0
"""Verify the cleaning of text from outside."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_flowservice.plain_text import clean_text

ANY_TEXT = st.text(st.characters())
"""Texts of all characters, which include control characters and lone surrogates."""


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("Orders, täglich 🚀", "Orders, täglich 🚀"),
        ("a\0b", "a\ufffdb"),
        ("a\ud83db", "a\ufffdb"),
        ("\x1b[31mred\x9b0m", "\ufffd[31mred\ufffd0m"),
        ("one\r\nERROR two\u2028three\x85four\tfive", "one  ERROR two three four five"),
        ("\u202egnp.exe\u200b", "\ufffdgnp.exe\ufffd"),
        ("x" * 1000, "x" * 1000),
        ("x" * 2_000_000, "x" * 999 + "…"),
        ("", ""),
    ],
)
def test_text_is_cleaned(text, cleaned):
    assert clean_text(text) == cleaned


@given(ANY_TEXT, st.integers(1, 30) | st.none())
def test_cleaned_text_is_printable_and_bounded(text, length):
    """The result can be printed, encoded and stored. Cleaning it again does not change it."""
    cleaned = clean_text(text, length=length)
    assert cleaned.isprintable()
    assert cleaned.encode("utf-8").decode("utf-8") == cleaned
    assert length is None or len(cleaned) <= length
    assert clean_text(cleaned, length=length) == cleaned


@given(st.text("abc", min_size=1) | ANY_TEXT)
def test_printable_text_is_unchanged(text):
    if text.isprintable():
        assert clean_text(text, length=None) is text
