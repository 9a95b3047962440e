# SPDX-License-Identifier: Apache-2.0
"""The calendar of a dataflow in a real browser, served by Airflow's API server on loopback.

If `CALENDAR_SCREENSHOTS` names a folder, the tests write screenshots into it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_flowservice._airflow import versions
from airflow_flowservice.demo.postgres import free_port
from tests.dag_history import DagHistory
from tests.integration.plugins.conftest import BEGIN, DAY, _token
from tests.integration.plugins.test_fleet_page import Overview, chromium

__all__ = ["chromium"]

PATIENCE = 60
NOW = BEGIN + timedelta(days=400, hours=6, minutes=20)  # Friday, 5 February 2027
TODAY = NOW.replace(hour=0, minute=0)
HOUR = timedelta(hours=1)
DAILY, HOURLY = "calendar_daily", "calendar_hourly"
YEAR = 365
# Days before the present one.
MISSING, FAILED, DUPLICATED, FEW = range(100, 104), 60, 200, 30
WEEKDAY_RECORDS, SUNDAY_RECORDS = 12_000, 900
ARROWS = {"left": "\ue012", "up": "\ue013", "right": "\ue014", "down": "\ue015"}
HOME, END, PAGE_UP, ENTER, ESCAPE = "\ue011", "\ue010", "\ue00e", "\ue007", "\ue00c"

_DAGS = f"""
import pendulum
from airflow.sdk import DAG
from airflow_flowservice.operators import OnDemandFlowRunOperator

for dag_id, schedule, flow_id in (("{DAILY}", "@daily", "daily"), ("{HOURLY}", "@hourly", "hourly")):
    start = pendulum.datetime({BEGIN.year}, 1, 1, tz="UTC")
    with DAG(dag_id=dag_id, schedule=schedule, start_date=start, catchup=True) as dag:
        OnDemandFlowRunOperator(task_id="ingest", flow_id=flow_id)
    globals()[dag_id] = dag
"""


def daily_history() -> DagHistory:
    """Return a year of daily runs, with few records on Sundays, and far fewer than usual on one other day."""
    history = DagHistory(dag_id=DAILY, flow_id="daily")
    for back in range(YEAR, 0, -1):
        start = TODAY - back * DAY
        records = SUNDAY_RECORDS if start.weekday() == 6 else WEEKDAY_RECORDS + 100 * (back % 7)
        if back == FEW:
            records //= 10
        if back in MISSING:
            continue
        has_failed = back == FAILED
        result = {"state": "failed", "status": "failed"} if has_failed else {"output_records": records}
        history.add_run(start + DAY, window=(start, start + DAY), **result)
        if back == DUPLICATED:
            history.add_run(start + DAY, window=(start, start + DAY), manual=True, output_records=records)
    return history


def hourly_history() -> DagHistory:
    """Return a year of hourly runs: a night is missing each week, and one hour each month failed."""
    history = DagHistory(dag_id=HOURLY, flow_id="hourly")
    for number in range(YEAR * 24):
        start = TODAY - YEAR * DAY + number * HOUR
        if start.weekday() == 2 and start.hour in (2, 3, 4) and start.month == 6:
            continue
        has_failed = start.day == 15 and start.hour == 14
        result = {"state": "failed", "status": "failed"} if has_failed else {"output_records": 500 + 40 * start.hour}
        history.add_run(start + HOUR, window=(start, start + HOUR), **result)
    return history


@pytest.fixture(scope="module")
def address(database: str, server: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve Airflow on loopback with two more DAGs, and remove them afterwards."""
    import uvicorn

    register(tmp_path_factory.mktemp("calendar"))
    for history in (daily_history(), hourly_history()):
        history.write(database)
    port = free_port()
    uvicorn_server = uvicorn.Server(uvicorn.Config(server, host="127.0.0.1", port=port, log_level="warning"))
    thread = threading.Thread(target=uvicorn_server.run, daemon=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(versions, "utc_now", lambda: NOW)
        thread.start()
        deadline = time.monotonic() + PATIENCE
        while not uvicorn_server.started and time.monotonic() < deadline:
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
        uvicorn_server.should_exit = True
        thread.join(timeout=PATIENCE)
    remove_dags()


def register(folder: Path) -> None:
    """Write the DAGs to the database with the functions that the dag-processor uses."""
    try:
        from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
    except ImportError:  # before 3.2
        from airflow.models.dagbag import DagBag, sync_bag_to_db

    (folder / "calendar_dags.py").write_text(_DAGS)
    sync_bag_to_db(DagBag(dag_folder=str(folder), bundle_path=folder), "dags-folder", None)


def remove_dags() -> None:
    """Remove the DAGs and their history, because other tests count the DAGs of this database."""
    from airflow.api.common.delete_dag import delete_dag

    for dag_id in (DAILY, HOURLY):
        delete_dag(dag_id)


class Calendar(Overview):
    """Driver of the calendar."""

    patience = 4 * PATIENCE  # a year of hours takes long on a busy machine

    def show(self, dag_id: str, **fragment: str) -> Calendar:
        """Open the windows of a DAG's dataflow, and wait for the calendar."""
        values = {"flow_id": dag_id.partition("_")[2], "dag_id": dag_id, **fragment}
        self.open("#" + "&".join(f"{name}={value}" for name, value in values.items()))
        self.wait(lambda: self.count(".cell[data-kind]"))
        return self

    def count(self, selector: str) -> int:
        """Return the number of elements; the driver takes long to return thousands of them."""
        return int(self.js(f"return document.querySelectorAll({selector!r}).length"))

    def cell(self, day: datetime, *, unit: str = "day") -> Any:
        """Return the cell of a day or hour."""
        size = HOUR if unit == "hour" else DAY
        first = self.js("return document.querySelector('[data-cell=\"0\"]').getAttribute('aria-label')").split(":")[0]
        begin = datetime.strptime(first[:15].strip(), "%a %d %b %Y").replace(tzinfo=day.tzinfo)
        return self.one(f".cell[data-cell='{(day - begin) // size}']")

    def label(self, day: datetime, *, unit: str = "day") -> str:
        return str(self.cell(day, unit=unit).get_attribute("aria-label"))

    def focused(self) -> str:
        return str(self.js("return document.activeElement.getAttribute('aria-label')"))

    def press(self, *keys: str) -> None:
        for key in keys:
            self.browser.switch_to.active_element.send_keys(key)

    def fragment(self) -> str:
        return str(self.js("return decodeURIComponent(location.hash)"))

    def resize(self, width: int) -> None:
        size = {"width": width, "height": 1100, "deviceScaleFactor": 1, "mobile": False}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def screenshot(self, name: str) -> None:
        if folder := os.environ.get("CALENDAR_SCREENSHOTS"):
            self.js("document.querySelector('#calendar').scrollIntoView({block: 'center'})")
            self.browser.save_screenshot(str(Path(folder) / f"{name}.png"))


@pytest.fixture
def calendar(chromium: Any, address: str) -> Calendar:
    """Return the page, logged in, with the light theme and the default size."""
    chromium.get(f"{address}/flowservice/static/icon.svg")
    chromium.add_cookie({"name": "_token", "value": _token("viewer", user=None), "path": "/"})
    chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    chromium.execute_script("localStorage.setItem('theme', 'light')")
    return Calendar(chromium, address=address)


def back(days: int) -> datetime:
    return TODAY - days * DAY


def test_each_day_has_its_state(calendar: Calendar) -> None:
    """The colours and patterns are those of the timeline; each cell has a text for screen readers."""
    calendar.show(DAILY)
    expected = {MISSING[0]: "missing", FAILED: "failed", DUPLICATED: "twice", FEW: "ingested"}
    for days, state in expected.items():
        cell = calendar.cell(back(days))
        assert (state, f"url(#{state})") == (cell.get_attribute("data-kind"), cell.get_attribute("fill"))
    day = back(FAILED)
    assert f"{day:%a} {day.day} {day:%b %Y}: 1 window: 1 failed; number of records not known" == calendar.label(day)
    text = calendar.one("#calendar-text").text
    assert text.startswith("365 days with windows: 4 missing (Sun 25 Oct 2026, Mon 26 Oct 2026, Tue 27 Oct 2026 and 1")
    assert text.endswith("1 duplicated (Mon 20 Jul 2026); 359 ingested.")
    for theme in ("light", "dark"):
        calendar.js(f"document.documentElement.dataset.theme = '{theme}'")
        calendar.screenshot(f"days-{theme}")


def test_roles_for_screen_readers(calendar: Calendar) -> None:
    """The grid has a row for each day of the week; one cell can be reached with the tab key."""
    calendar.show(DAILY)
    assert 7 == len(calendar.all("[role=grid] > [role=row]"))
    cells = calendar.all("[role=row] > [role=gridcell][aria-label]")
    assert 366 <= len(cells) <= 371
    assert 1 == len(calendar.all("[role=gridcell][tabindex]"))
    described = calendar.one("[role=grid]").get_attribute("aria-describedby").split()
    assert all(calendar.all(f"#{name}") for name in described)


def test_keys_move_and_select_the_day(calendar: Calendar) -> None:
    """Enter shows the day in the timeline and the table, and the address keeps it; Escape shows the whole range."""
    calendar.show(DAILY)
    calendar.js("document.querySelector('.cell[tabindex]').focus()")
    start = back(1)
    assert calendar.focused() == calendar.label(start)
    for keys, days in ((["left"], 8), (["up"], 9), (["right"], 2), (["down", "left"], 8)):
        calendar.press(*(ARROWS[key] for key in keys))
        assert calendar.focused() == calendar.label(back(days))
    calendar.press(PAGE_UP)
    assert calendar.focused() == calendar.label(back(36))
    calendar.press(ENTER)
    day = back(36)
    calendar.wait(lambda: "1 to 1 of 1 window," in calendar.one("#rows-text").text)
    assert f"zoom={day:%Y-%m-%dT%H:%M:%SZ}/{day + DAY:%Y-%m-%dT%H:%M:%SZ}" in calendar.fragment()
    assert [calendar.label(day)] == [
        each.get_attribute("aria-label") for each in calendar.all(".cell[aria-selected=true]")
    ]
    assert calendar.focused() == calendar.label(day)
    calendar.press(HOME)
    assert calendar.focused().startswith(f"{day:%a}")
    calendar.press(ESCAPE)
    calendar.wait(lambda: "365 windows" in calendar.one("#rows-text").text or "366" in calendar.one("#rows-text").text)
    assert "zoom=" not in calendar.fragment()
    assert not calendar.all(".cell[aria-selected=true]")


@pytest.mark.slow
def test_click_selects_the_day(calendar: Calendar) -> None:
    calendar.show(DAILY)
    calendar.cell(back(FAILED)).click()
    calendar.wait(
        lambda: (
            [row.get_attribute("data-start")[:10] for row in calendar.all("#rows tr")] == [f"{back(FAILED):%Y-%m-%d}"]
        )
    )
    calendar.screenshot("day-selected")


@pytest.mark.slow
def test_the_present_day_is_within_the_range(calendar: Calendar) -> None:
    """The last day is not over, and is selected only until now."""
    calendar.show(HOURLY, cells="day")
    calendar.cell(TODAY).click()
    calendar.wait(lambda: "zoom=" in calendar.fragment())
    assert f"zoom={TODAY:%Y-%m-%dT%H:%M:%SZ}/{NOW:%Y-%m-%dT%H:%M:%SZ}" in calendar.fragment()


@pytest.mark.slow
def test_day_with_a_tenth_of_the_records_is_seen(calendar: Calendar) -> None:
    """The usual number is that of the same day of the week, so that a small Sunday is not remarkable."""
    calendar.show(DAILY)
    calendar.one("#calendar-records").click()
    calendar.wait(lambda: calendar.all(".level-low"))
    few = back(FEW)
    sunday = next(back(days) for days in range(1, 8) if back(days).weekday() == 6)
    assert "low" == calendar.cell(few).get_attribute("data-kind")
    assert "usual" == calendar.cell(sunday).get_attribute("data-kind")
    assert "none" == calendar.cell(back(FAILED)).get_attribute("data-kind")
    assert [calendar.label(few)] == [
        each.get_attribute("aria-label") for each in calendar.all("#calendar-grid .level-low")
    ]
    name = f"{few:%a} {few.day} {few:%b %Y}"
    text = calendar.one("#calendar-text").text
    assert f"1 with a quarter of the usual records or fewer: {name} (1,2" in text
    assert "a quarter of the usual records, or fewer (12,200)" in calendar.label(few)
    for theme in ("light", "dark"):
        calendar.js(f"document.documentElement.dataset.theme = '{theme}'")
        calendar.screenshot(f"records-{theme}")
    assert "measure=records" in calendar.fragment()
    calendar.open(calendar.js("return location.hash"))
    calendar.wait(lambda: calendar.all("#calendar-grid .level-low"))


@pytest.mark.slow
def test_hourly_dataflow_has_a_cell_for_each_hour(calendar: Calendar) -> None:
    """A year has 8,760 of them; days can be chosen instead."""
    calendar.show(HOURLY)
    assert 24 == len(calendar.all("[role=grid] > [role=row]"))
    assert 366 * 24 == calendar.count(".cell")
    failed = next(back(days) for days in range(1, 40) if back(days).day == 15) + 14 * HOUR
    assert "failed" == calendar.cell(failed, unit="hour").get_attribute("data-kind")
    assert f"{failed:%a} {failed.day} {failed:%b %Y} 14:00: 1 window: 1 failed" in calendar.label(failed, unit="hour")
    calendar.screenshot("hours-light")
    calendar.js("document.querySelector('.cell[tabindex]').focus()")
    before = calendar.focused()
    calendar.press(ARROWS["up"], ARROWS["left"], ARROWS["right"], ARROWS["down"])
    assert before == calendar.focused()
    calendar.one("#calendar-day").click()
    calendar.wait(lambda: 7 == len(calendar.all("[role=grid] > [role=row]")))
    assert "failed" == calendar.cell(failed.replace(hour=0)).get_attribute("data-kind")
    assert "24 windows: 1 failed, 23 ingested" in calendar.label(failed.replace(hour=0))
    assert "cells=day" in calendar.fragment()


@pytest.mark.slow
def test_hours_have_records_also(calendar: Calendar) -> None:
    calendar.show(HOURLY, measure="records")
    calendar.wait(lambda: calendar.count("#calendar-grid .level-usual"))
    assert not calendar.all("#calendar-grid .level-low")
    assert "Hours" == calendar.one("#calendar-units [aria-pressed=true]").text
    calendar.screenshot("hours-records")


@pytest.mark.slow
@pytest.mark.parametrize("dag_id", [DAILY, HOURLY])
@pytest.mark.parametrize("width", [360, 428, 1032])
def test_page_fits_the_width(calendar: Calendar, width: int, dag_id: str) -> None:
    """On a phone, only the calendar scrolls sideways, and shows its end first."""
    calendar.resize(width)
    calendar.show(dag_id)
    assert calendar.js("return document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    place = "document.querySelector('#calendar-scroll')"
    assert calendar.js(f"return {place}.scrollLeft + {place}.clientWidth >= {place}.scrollWidth - 2")
    calendar.screenshot(f"{dag_id}-{width}")


@pytest.mark.slow
def test_filter_of_states_applies(calendar: Calendar) -> None:
    """Days without a window of the chosen states are faint."""
    calendar.show(DAILY, states="missing")
    assert 4 == len(calendar.all("#calendar-grid .cell.missing:not(.faint)"))
    assert 0 == calendar.count("#calendar-grid .cell.ingested:not(.faint)")


@pytest.mark.slow
def test_years_of_a_longer_range(calendar: Calendar) -> None:
    """A range of more than a year has buttons for each year, and the address keeps the year."""
    calendar.show(DAILY, **{"from": "2026-01-01T00:00:00Z", "to": "2027-02-05T00:00:00Z"})
    last = calendar.all(".cell")[-1].get_attribute("aria-label")
    calendar.one("#calendar-earlier").click()
    calendar.wait(lambda: calendar.all(".cell")[-1].get_attribute("aria-label") != last)
    assert calendar.one(".cell[data-cell='0']").get_attribute("aria-label").startswith("Thu 1 Jan 2026")
    assert "years_back=1" in calendar.fragment()
    assert not calendar.one("#calendar-earlier").is_enabled()
    calendar.one("#calendar-later").click()
    calendar.wait(lambda: calendar.all(".cell")[-1].get_attribute("aria-label") == last)


@pytest.mark.slow
def test_moving_the_view_does_not_draw_the_calendar_again(calendar: Calendar) -> None:
    """A year of hours has 8,760 cells, so a zoom only changes the marks of the selected days."""
    calendar.show(HOURLY)
    calendar.js("window.grid = document.querySelector('#calendar-grid svg')")
    calendar.one("#zoom-in").click()
    calendar.wait(lambda: calendar.all(".calendar-selection rect"))
    assert calendar.js("return window.grid === document.querySelector('#calendar-grid svg')")
