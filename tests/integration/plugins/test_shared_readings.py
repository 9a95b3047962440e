# SPDX-License-Identifier: Apache-2.0
"""Requests that need the same at the same time share one reading, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from threading import Event
from typing import Any

import pytest

from airflow_flowservice.plugins.error_responses import PageRequestError
from airflow_flowservice.plugins.shared_readings import SharedReadings


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Reading:
    """Reading that takes a time of the clock, waits until it is released, and counts its calls."""

    clock: Clock
    seconds: float = 0.0
    released: Event = field(default_factory=Event)
    calls: int = 0
    error: Exception | None = None

    def __call__(self) -> str:
        self.calls += 1
        assert self.released.wait(30)
        self.clock.now += self.seconds
        if self.error:
            raise self.error
        return f"result {self.calls}"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def readings(clock: Clock) -> SharedReadings[str]:
    return SharedReadings(monotonic=clock)


@pytest.fixture
def reading(clock: Clock) -> Iterator[Callable[..., Reading]]:
    """Return a factory of readings, which are released at the end."""
    made: list[Reading] = []

    def create(*, waits: bool = False, **fields: Any) -> Reading:
        made.append(Reading(clock, **fields))
        if not waits:
            made[-1].released.set()
        return made[-1]

    yield create
    for each in made:
        each.released.set()


async def started(readings: SharedReadings[str], key: Any, read: Reading, *, number: int) -> list[asyncio.Task[str]]:
    """Start requests; return when all of them wait."""
    tasks = [asyncio.ensure_future(readings.get(key, read)) for _ in range(number)]
    while read.calls == 0:  # noqa: ASYNC110 - another thread calls it
        await asyncio.sleep(0.001)
    return tasks


def test_one_reading_for_all(readings: SharedReadings[str], reading: Any) -> None:
    """Waiting requests occupy no thread of the event loop."""
    read = reading(waits=True)

    async def run() -> list[str]:
        tasks = await started(readings, "key", read, number=60)
        assert "free" == await asyncio.wait_for(asyncio.to_thread(lambda: "free"), 30)
        read.released.set()
        return await asyncio.gather(*tasks)

    assert ["result 1"] * 60 == asyncio.run(run())
    assert 1 == read.calls


def test_keys_have_their_own_results(readings: SharedReadings[str], reading: Any) -> None:
    """A key has the permissions, so this is what separates people."""
    reads = {key: reading(seconds=1.0) for key in (frozenset({"a"}), frozenset({"a", "b"}))}

    async def run() -> None:
        for key, read in reads.items():
            await readings.get(key, read)

    asyncio.run(run())
    assert [1, 1] == [read.calls for read in reads.values()]


def test_error_is_raised_for_each_and_not_kept(readings: SharedReadings[str], reading: Any) -> None:
    broken, works = reading(waits=True, seconds=1.0, error=ValueError("broken")), reading()

    async def run() -> list[Any]:
        tasks = await started(readings, "key", broken, number=3)
        broken.released.set()
        failed = await asyncio.gather(*tasks, return_exceptions=True)
        return [*map(str, failed), await readings.get("key", works)]

    assert ["broken", "broken", "broken", "result 1"] == asyncio.run(run())
    assert (1, 1) == (broken.calls, works.calls)


def test_cancelled_request_leaves_the_others_alone(readings: SharedReadings[str], reading: Any) -> None:
    read = reading(waits=True)

    async def run() -> Any:
        first, second = await started(readings, "key", read, number=2)
        first.cancel()
        await asyncio.sleep(0)
        read.released.set()
        return await asyncio.gather(first, second, return_exceptions=True)

    cancelled, result = asyncio.run(run())
    assert ("CancelledError", "result 1") == (type(cancelled).__name__, result)


@pytest.mark.parametrize(
    ("seconds", "kept_s"),
    [(0.2, 0.0), (1.5, 1.5), (60.0, 5.0)],
    ids=["not at all", "as long as it took", "five seconds"],
)
def test_time_of_a_result(
    readings: SharedReadings[str], reading: Any, clock: Clock, seconds: float, kept_s: float
) -> None:
    read = reading(seconds=seconds)

    async def calls_after(later: float) -> int:
        clock.now += later
        await readings.get("key", read)
        return int(read.calls)

    async def run() -> list[int]:
        return [await calls_after(0.0), await calls_after(kept_s * 0.9), await calls_after(kept_s * 0.2)]

    assert ([1, 1, 2] if kept_s else [1, 2, 3]) == asyncio.run(run())


def test_too_many_readings(readings: SharedReadings[str], reading: Any) -> None:
    """The ninth set of permissions is refused at once; a request for a running reading is not."""
    reads = [reading(waits=True) for _ in range(8)]

    async def run() -> int:
        tasks = [task for key, read in enumerate(reads) for task in await started(readings, key, read, number=1)]
        with pytest.raises(PageRequestError) as refused:
            await readings.get("ninth", reads[0])
        joined = asyncio.ensure_future(readings.get(0, reads[0]))
        await asyncio.sleep(0)
        for read in reads:
            read.released.set()
        await asyncio.gather(*tasks, joined)
        return refused.value.status

    assert 503 == asyncio.run(run())
    assert [1] * 8 == [read.calls for read in reads]


def test_requests_of_several_event_loops(readings: SharedReadings[str], reading: Any) -> None:
    """A result belongs to no event loop."""
    read = reading(seconds=1.0)
    assert ["result 1"] * 2 == [asyncio.run(readings.get("key", read)) for _ in range(2)]
