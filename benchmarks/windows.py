# SPDX-License-Identifier: Apache-2.0
"""Compare the cost of finding a window with one step of croniter.

`python benchmarks/windows.py` measures the processor time for several crons in turns, for `--seconds`. The times are
on an ordinary day and in the hours around both changes of the clock. The exit status is 1 if the median cost of a
window is a millisecond or more at any time.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from statistics import median
from time import monotonic, process_time
from zoneinfo import ZoneInfo

from croniter import croniter

from airflow_flowservice.windows.cron import CronSchedule, MultipleCronSchedule

LIMIT_MS = 1.0
CRONS = (
    ("0 0 * * *",),
    ("0 * * * *",),
    ("*/7 * * * *",),
    ("* * * * *",),
    ("30-59 * * * *",),
    ("*/5 1-6,9,12 * * *",),
    ("0 6 * * 1-5",),
    ("0 0 1 * *",),
    ("0 0 29 2 *",),
    ("0 * 1 * *",),
    ("10 2 * * *", "30 2 * * *", "0 12 * * 1-5"),
)
# For each zone, the times of a clock change forward and of one back.
CHANGES = {
    "Europe/Zurich": ("2026-03-29T01:00:00+00:00", "2026-10-25T01:00:00+00:00"),
    "Australia/Lord_Howe": ("2026-10-03T15:30:00+00:00", "2026-04-04T15:00:00+00:00"),
}
ORDINARY = "2026-06-17T12:00:00+00:00"
HOURS_AFTER = [timedelta(minutes=minutes) for minutes in range(-60, 241, 20)]


@dataclass(frozen=True)
class Case:
    """One schedule at one kind of times, with the measured milliseconds of processor time."""

    crons: tuple[str, ...]
    zone: ZoneInfo
    when: str
    times: list[datetime]
    windows: dict[datetime, list[float]] = field(default_factory=dict)
    steps: dict[datetime, list[float]] = field(default_factory=dict)

    def measure(self) -> None:
        """Measure finding a window and one step of croniter, for each time."""
        for time in self.times:
            self.windows.setdefault(time, []).append(_milliseconds(self._schedule.previous, time))
            self.steps.setdefault(time, []).append(_milliseconds(self._step, time))

    @property
    def window(self) -> float:
        """Return the largest median over the times, in milliseconds."""
        return max(median(samples) for samples in self.windows.values())

    @property
    def ratio(self) -> float:
        """Return the largest ratio of the median to the median of a step."""
        return max(median(self.windows[time]) / median(self.steps[time]) for time in self.times)

    @property
    def _schedule(self) -> MultipleCronSchedule | CronSchedule:
        schedules = tuple(CronSchedule(expression=cron, zone=self.zone) for cron in self.crons)
        return MultipleCronSchedule(schedules=schedules) if len(schedules) > 1 else schedules[0]

    def _step(self, time: datetime) -> None:
        wall_clock = time.astimezone(self.zone).replace(tzinfo=None)
        for cron in self.crons:
            croniter(cron, wall_clock).get_prev(datetime)


def main() -> int:
    """Measure and print a table; return 1 if a window exceeds the limit, else 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=15, help="duration of the measurement (default: %(default)s)")
    cases = list(_cases())
    rounds = _measure(cases, seconds=parser.parse_args().seconds)
    sys.stdout.write(_table(cases, rounds))
    return int(any(case.window >= LIMIT_MS for case in cases))


def _table(cases: list[Case], rounds: int) -> str:
    lines = [f"{'cron':<40} {'zone':<20} {'when':<14} {'steps':>6} {'ms':>7}"]
    for case in cases:
        slow = " SLOW" if case.window >= LIMIT_MS else ""
        names = f"{', '.join(case.crons):<40} {case.zone.key:<20} {case.when:<14}"
        lines.append(f"{names} {case.ratio:6.2f} {case.window:7.3f}{slow}")
    lines += [
        "",
        f"Medians of {rounds} rounds; each row has its largest value. steps: cost of finding a window, in steps of",
        "croniter with parsing. ms: processor time, for information.",
        f"Most steps: {max(case.ratio for case in cases):.2f}. Most ms: {max(case.window for case in cases):.3f}.",
    ]
    return "\n".join(lines) + "\n"


def _cases() -> Iterator[Case]:
    for crons in CRONS:
        for key, changes in CHANGES.items():
            zone = ZoneInfo(key)
            yield Case(crons, zone, "ordinary", [datetime.fromisoformat(ORDINARY)])
            for when, change in zip(("clock forward", "clock back"), changes, strict=True):
                times = [datetime.fromisoformat(change) + after for after in HOURS_AFTER]
                yield Case(crons, zone, when, [time.astimezone(timezone.utc) for time in times])


def _measure(cases: list[Case], *, seconds: float) -> int:
    end = monotonic() + seconds
    rounds = 0
    while rounds < 3 or monotonic() < end:
        for case in cases:
            case.measure()
        rounds += 1
    return rounds


def _milliseconds(function: Callable[[datetime], object], time: datetime) -> float:
    before = process_time()
    function(time)
    return (process_time() - before) * 1000


if __name__ == "__main__":
    sys.exit(main())
