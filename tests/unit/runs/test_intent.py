# SPDX-License-Identifier: Apache-2.0
"""Tests of attempts and of stored intents."""

from __future__ import annotations

from typing import Any

import pytest
from creations import adopted

from airflow_flowservice.runs.intent import Attempt, Intent


class TestAttempt:
    @pytest.mark.parametrize(
        ("try_number", "max_tries", "retries", "expected"),
        [(1, 0, 0, True), (1, 2, 2, True), (2, 2, 2, False), (3, 2, 2, False), (3, 4, 2, True), (4, 4, 2, False)],
    )
    def test_the_first_since_the_last_clear(
        self, try_number: int, max_tries: int, retries: int, expected: bool
    ) -> None:
        """A retry does not change `max_tries`, and a clear increases it."""
        assert Attempt(try_number=try_number, max_tries=max_tries, retries=retries).is_first is expected


class TestIntent:
    def test_unknown_fields_are_ignored(self) -> None:
        """After a downgrade, intents of the later version still apply."""
        intent = Intent(order="o", max_tries=1, token="t", written_at=1.5)
        assert Intent.from_json({**intent.to_json(), "news": 1}) == intent

    @pytest.mark.parametrize("stored", ["text", ["a list"], {"order": "o"}, 7])
    def test_an_unreadable_intent_requires_a_comparison(self, world: Any, stored: Any) -> None:
        """A value was written before a POST, so the flow runs are compared before another POST."""
        window = world.order().window
        world.service.add(window=window)
        world.store.set("flowservice_intent", stored)
        assert (world.attempt(number=2), world.service.posted) == (adopted(), [])

    def test_json_round_trip(self) -> None:
        """An intent survives a round trip through JSON."""
        intent = Intent(order="o", max_tries=1, token="t", written_at=1.5, start_time=2, known=("a",), oldest_known=1.0)
        assert Intent.from_json(intent.to_json()) == intent

    @pytest.mark.parametrize(
        "value", [None, {}, "text", 1, [], {"known": None}, {"known": [], "of": "tomorrow"}], ids=repr
    )
    def test_other_values_are_no_intent(self, value: Any) -> None:
        """An unknown value is ignored."""
        assert Intent.from_json(value) is None
