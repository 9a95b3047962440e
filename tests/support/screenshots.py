# SPDX-License-Identifier: Apache-2.0
"""Write screenshots of the demo's Airflow: `python tests/support/screenshots.py FOLDER`.

The files are connection.png (the form), grid.png (the DAG), buttons.png (a task's links) and page.png (the page). The
script needs Chromium, chromedriver, Selenium and Airflow 3.1 or later, and takes a few minutes.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rich.console import Console

from airflow_flowservice.demo import scenario
from airflow_flowservice.demo.emulator import TABLE_FLOW
from airflow_flowservice.demo.local_airflow import LocalAirflow
from airflow_flowservice.demo.progress import DemoProgress

DAG_ID, TASK_ID = "flowservice_daily", "ingest"
OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--window-size=1400,1000")
PATIENCE_S = 30


class Screen:
    """Browser that is logged in to Airflow.

    :param folder: folder of the screenshots.
    """

    def __init__(self, browser: Any, *, airflow: LocalAirflow, folder: Path) -> None:
        self._browser = browser
        self._address = airflow.address
        self._folder = folder
        browser.get(f"{airflow.address}/flowservice/static/icon.svg")
        browser.add_cookie({"name": "_token", "value": airflow.rest.token, "path": "/"})
        browser.execute_script("localStorage.setItem('theme', 'light')")

    def open(self, path: str) -> None:
        """Open a path of Airflow."""
        self._browser.switch_to.default_content()
        self._browser.get("about:blank")
        self._browser.get(self._address + path)

    def enter_frame(self) -> None:
        """Enter the frame of the page."""
        self._browser.switch_to.frame(self.element("//iframe"))

    def element(self, xpath: str) -> Any:
        """Return the first element that is visible, and wait for it."""
        found: list[Any] = self._wait(
            lambda: [each for each in self._browser.find_elements("xpath", xpath) if each.is_displayed()]
        )
        return found[0]

    def save(self, name: str) -> None:
        """Write a screenshot of the window."""
        self._browser.switch_to.default_content()
        self._browser.save_screenshot(str(self._folder / f"{name}.png"))

    def _wait(self, condition: Callable[[], Any]) -> Any:
        from selenium.common.exceptions import StaleElementReferenceException
        from selenium.webdriver.support.ui import WebDriverWait

        ignored = [StaleElementReferenceException]
        return WebDriverWait(self._browser, PATIENCE_S, ignored_exceptions=ignored).until(lambda _: condition())


def take_grid(screen: Screen, _run_id: str) -> None:
    """Show the grid of the DAG."""
    screen.open(f"/dags/{DAG_ID}")
    screen.element(f"//*[text()='{TASK_ID}']")


def take_buttons(screen: Screen, run_id: str) -> None:
    """Show the links of a task instance."""
    screen.open(f"/dags/{DAG_ID}/runs/{quote(run_id)}/tasks/{TASK_ID}/details")
    screen.element("//*[self::a or self::button][contains(., 'Open in Experience Platform')]")


def take_page(screen: Screen, _run_id: str) -> None:
    """Show the page in Airflow's frame."""
    screen.open(f"/plugin/flowservice#flow_id={TABLE_FLOW}")
    screen.enter_frame()
    screen.element("//*[@id='rows']//tr")


def take_connection(screen: Screen, _run_id: str) -> None:
    """Show the form of a new connection."""
    screen.open("/connections")
    screen.element("//button[contains(., 'Add Connection')]").click()
    screen.element("//*[@role='dialog']//input[@role='combobox']").send_keys("flowservice\ue007")
    screen.element("//*[@role='dialog']//*[contains(text(), 'Client ID')]")


SHOTS = {"grid": take_grid, "buttons": take_buttons, "page": take_page, "connection": take_connection}


def take_all(screen: Screen, *, run_id: str) -> list[str]:
    """Write all screenshots; return the names of those whose content did not appear."""
    from selenium.common.exceptions import WebDriverException

    failed = []
    for name, take in SHOTS.items():
        try:
            take(screen, run_id)
        except WebDriverException:
            failed.append(name)
        screen.save(f"{name}-failed" if name in failed else name)
    return failed


@contextmanager
def browser() -> Iterator[Any]:
    """Start a browser, and end it afterwards."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    for option in OPTIONS:
        options.add_argument(option)
    options.binary_location = shutil.which("chromium") or ""
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        yield driver
    finally:
        driver.quit()


def main(folder: Path) -> None:
    """Run the demo's backfill, and write the screenshots into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    dates = scenario.BackfillDates.past(7, now=datetime.now(timezone.utc))
    home = Path(tempfile.mkdtemp(prefix="flowservice-screenshots-"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        with DemoProgress(console=Console(width=110)) as progress:
            airflow, _ = scenario._start(stack, home=home, progress=progress)
            scenario._backfill(airflow, dates=dates, progress=progress)
        (newest, *_) = airflow.wait_for_runs(DAG_ID, count=dates.count, timeout=10, run_type="backfill")
        with browser() as driver:
            failed = take_all(Screen(driver, airflow=airflow, folder=folder), run_id=newest["dag_run_id"])
    if failed:
        sys.exit(f"These did not appear, see the files with -failed: {', '.join(failed)}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(str(__doc__))
    main(Path(sys.argv[1]))
