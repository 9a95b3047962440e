"""What finding a window costs, beside one step of croniter on the same machine at the same time.

`python benchmarks/windows.py` measures several crons on an ordinary day and in the hours after both changes of the
clock, for `--seconds`, in turns, by processor time. It ends with 1 if a window costs a millisecond or more in the
median at any moment.
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

from airflow_flowservice.windows.cron import AnyOfSchedule, CronSchedule

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
# For each zone the moment of a change forward, and of one back.
CHANGES = {
    "Europe/Zurich": ("2026-03-29T01:00:00+00:00", "2026-10-25T01:00:00+00:00"),
    "Australia/Lord_Howe": ("2026-10-03T15:30:00+00:00", "2026-04-04T15:00:00+00:00"),
}
ORDINARY = "2026-06-17T12:00:00+00:00"
HOURS_AFTER = [timedelta(minutes=minutes) for minutes in range(-60, 241, 20)]


@dataclass(frozen=True)
class Case:
    """One schedule at one kind of moment, and what was measured there, in milliseconds."""

    crons: tuple[str, ...]
    zone: ZoneInfo
    when: str
    moments: list[datetime]
    windows: dict[datetime, list[float]] = field(default_factory=dict)
    steps: dict[datetime, list[float]] = field(default_factory=dict)

    def measure(self) -> None:
        """Find a window for each moment, and take one step beside it."""
        for moment in self.moments:
            self.windows.setdefault(moment, []).append(_milliseconds(self._schedule.previous, moment))
            self.steps.setdefault(moment, []).append(_milliseconds(self._step, moment))

    @property
    def window(self) -> float:
        """The median at the worst of the moments."""
        return max(median(samples) for samples in self.windows.values())

    @property
    def ratio(self) -> float:
        """How many steps that is, at the worst of the moments."""
        return max(median(self.windows[moment]) / median(self.steps[moment]) for moment in self.moments)

    @property
    def _schedule(self) -> AnyOfSchedule | CronSchedule:
        schedules = tuple(CronSchedule(expression=cron, zone=self.zone) for cron in self.crons)
        return AnyOfSchedule(schedules=schedules) if len(schedules) > 1 else schedules[0]

    def _step(self, moment: datetime) -> None:
        wall_clock = moment.astimezone(self.zone).replace(tzinfo=None)
        for cron in self.crons:
            croniter(cron, wall_clock).get_prev(datetime)


def main() -> int:
    """Measure, print a table, and say whether it is quick enough."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=15, help="how long to measure (default: %(default)s)")
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
        f"Medians of {rounds} rounds, at the worst of each row's moments. steps: how many steps of croniter, with the",
        "parsing that each needs, finding a window takes. ms: of processor time, for information.",
        f"Most steps: {max(case.ratio for case in cases):.2f}. Most ms: {max(case.window for case in cases):.3f}.",
    ]
    return "\n".join(lines) + "\n"


def _cases() -> Iterator[Case]:
    for crons in CRONS:
        for key, changes in CHANGES.items():
            zone = ZoneInfo(key)
            yield Case(crons, zone, "ordinary", [datetime.fromisoformat(ORDINARY)])
            for when, change in zip(("clock forward", "clock back"), changes, strict=True):
                moments = [datetime.fromisoformat(change) + after for after in HOURS_AFTER]
                yield Case(crons, zone, when, [moment.astimezone(timezone.utc) for moment in moments])


def _measure(cases: list[Case], *, seconds: float) -> int:
    end = monotonic() + seconds
    rounds = 0
    while rounds < 3 or monotonic() < end:
        for case in cases:
            case.measure()
        rounds += 1
    return rounds


def _milliseconds(function: Callable[[datetime], object], moment: datetime) -> float:
    before = process_time()
    function(moment)
    return (process_time() - before) * 1000


if __name__ == "__main__":
    sys.exit(main())
