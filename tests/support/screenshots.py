# SPDX-License-Identifier: Apache-2.0
"""Write screenshots of Airflow and of the page: `PYTHONPATH=. python tests/support/screenshots.py FOLDER`.

The script runs the demo's Airflow and emulator, with the history of some dataflows, and writes:

- overview.png, overview-dark.png, overview-phone.png: all dataflows
- coverage.png, coverage-dark.png, coverage-phone.png: the windows of a dataflow
- preview.png, progress.png: the dialog that fills gaps
- connection.png, connection-fields.png (the form), grid.png (a DAG), buttons.png (a task's links)

To renew the images of the documentation, copy overview.png and coverage.png to docs. The script needs Chromium,
chromedriver, Selenium and Airflow 3.2 or later, and takes a few minutes.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import NAMESPACE_URL, uuid5

import requests
from patience import wait_until

from airflow_flowservice.demo.emulator import EmulatedFlowService, start_emulator
from airflow_flowservice.demo.local_airflow import LocalAirflow
from airflow_flowservice.demo.processes import Supervisor
from tests.dag_history import DagHistory

TASK_ID = "ingest"
OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--window-size=1400,1000")
PATIENCE_S = 30
DAY = timedelta(days=1)
PHONE = {"width": 428, "height": 900, "deviceScaleFactor": 1, "mobile": False}

_DAGS = """
import pendulum
from airflow.sdk import DAG
from airflow_flowservice.operators import OnDemandFlowRunOperator

for dag_id, tag, flow_id, start in {rows!r}:
    with DAG(dag_id=dag_id, schedule="@daily", start_date=pendulum.parse(start), catchup=False, tags=[tag]) as dag:
        OnDemandFlowRunOperator(task_id="ingest", flow_id=flow_id, wait_for_completion=True, deferrable=True)
    globals()[dag_id] = dag
"""


@dataclass(frozen=True, kw_only=True)
class Dataflow:
    """Dataflow with a DAG and a past; its days are counted back from the present one.

    :param name: name in Flow Service.
    :param days: first day of its history.
    :param last: last day of its history. A DAG with the last day 2 is unpaused, and ingests the day 1.
    """

    dag_id: str
    name: str
    tag: str
    days: int = 365
    last: int = 2
    missing: Collection[int] = ()
    failed: Collection[int] = ()
    duplicated: Collection[int] = ()

    @property
    def flow_id(self) -> str:
        """Return the id."""
        return str(uuid5(NAMESPACE_URL, self.dag_id))

    def row(self, midnight: datetime) -> tuple[str, ...]:
        """Return the values of the DAG file. The window of a DAG run ends at its logical date."""
        return self.dag_id, self.tag, self.flow_id, (midnight - (self.days - 1) * DAY).isoformat()

    def history(self, midnight: datetime) -> DagHistory:
        """Return the history of the DAG, with fewer records on Sundays."""
        history = DagHistory(dag_id=self.dag_id, flow_id=self.flow_id)
        for back in sorted(set(range(self.last, self.days + 1)) - set(self.missing), reverse=True):
            start, end = midnight - back * DAY, midnight - (back - 1) * DAY
            records = 900 if start.weekday() == 6 else 12_000 + 100 * (back % 7)
            result = {"state": "failed", "status": "failed"} if back in self.failed else {"output_records": records}
            history.add_run(end, window=(start, end), **result)
            if back in self.duplicated:
                history.add_run(end, window=(start, end), manual=True, output_records=records)
        return history


ORDERS = Dataflow(
    dag_id="orders", name="Orders to profiles", tag="commerce", missing=range(100, 104), failed=[60], duplicated=[200]
)
DATAFLOWS = (
    ORDERS,
    Dataflow(dag_id="customers", name="Customers", tag="crm", failed=[2, 3]),
    Dataflow(dag_id="returns", name="Returns", tag="commerce", last=12),  # never queried, so its name is not known
    Dataflow(dag_id="web_clicks", name="Web clicks", tag="web"),
    Dataflow(dag_id="loyalty_points", name="Loyalty points", tag="crm", days=120, missing=[30]),
    Dataflow(dag_id="store_visits", name="Store visits", tag="commerce", days=200),
)


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

    def open(self, path: str, *, theme: str = "light") -> None:
        """Open a path of Airflow with a theme, and enter the frame if it is a page of a plugin."""
        self._browser.switch_to.default_content()
        self._browser.get(f"{self._address}/flowservice/static/icon.svg")
        self._browser.execute_script("localStorage.setItem('theme', arguments[0])", theme)
        self._browser.get(self._address + path)
        if path.startswith("/plugin/"):
            self._browser.switch_to.frame(self.element("//iframe"))

    def resize(self, size: dict[str, Any] | None) -> None:
        """Set the size of a device, or the size of the window for None."""
        self._browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        if size:
            self._browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def element(self, xpath: str) -> Any:
        """Return the first element that is visible, and wait for it."""
        found: list[Any] = self._wait(
            lambda: [each for each in self._browser.find_elements("xpath", xpath) if each.is_displayed()]
        )
        return found[0]

    def click(self, xpath: str) -> None:
        """Scroll to an element, and click it."""
        element = self.element(xpath)
        self._browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
        element.click()

    def save(self, name: str) -> None:
        """Write a screenshot of the window."""
        self._browser.switch_to.default_content()
        self._browser.save_screenshot(str(self._folder / f"{name}.png"))

    def _wait(self, condition: Callable[[], Any]) -> Any:
        from selenium.common.exceptions import StaleElementReferenceException
        from selenium.webdriver.support.ui import WebDriverWait

        ignored = [StaleElementReferenceException]
        return WebDriverWait(self._browser, PATIENCE_S, ignored_exceptions=ignored).until(lambda _: condition())


def show_overview(screen: Screen, *, theme: str = "light", size: dict[str, Any] | None = None) -> None:
    """Show all dataflows, on a phone without Airflow's frame."""
    screen.resize(size)
    screen.open("/flowservice/" if size else "/plugin/flowservice", theme=theme)
    screen.element("//*[@id='fleet-rows']//tr")


def show_coverage(screen: Screen, *, theme: str = "light", size: dict[str, Any] | None = None) -> None:
    """Show the windows of a dataflow."""
    screen.resize(size)
    screen.open(f"{'/flowservice/' if size else '/plugin/flowservice'}#flow_id={ORDERS.flow_id}", theme=theme)
    screen.element("//*[@id='rows']//tr")


def show_preview(screen: Screen) -> None:
    """Show what the button would do."""
    show_coverage(screen)
    screen.click("//*[@id='fill-button']")
    screen.element("//*[@id='fill-windows']//tr")


def show_progress(screen: Screen) -> None:
    """Fill the gaps, until the first window is ingested."""
    show_preview(screen)
    screen.click("//*[@id='fill-confirm']")
    screen.element("//*[@id='fill-states'][contains(., 'ingested')]")


def show_grid(screen: Screen) -> None:
    """Show the grid of the DAG."""
    screen.open(f"/dags/{ORDERS.dag_id}")
    screen.element(f"//*[text()='{TASK_ID}']")


def show_buttons(screen: Screen, *, run_id: str) -> None:
    """Show the links of a task instance."""
    screen.open(f"/dags/{ORDERS.dag_id}/runs/{quote(run_id)}/tasks/{TASK_ID}/details")
    screen.element("//*[self::a or self::button][contains(., 'Open in Experience Platform')]")


def show_connection(screen: Screen) -> None:
    """Show the form of a new connection."""
    screen.open("/connections")
    screen.click("//button[contains(., 'Add Connection')]")
    screen.element("//*[@role='dialog']//input[@role='combobox']").send_keys("flowservice")
    screen.click("//*[@role='option'][contains(., 'Flow Service')]")
    screen.element("//*[@role='dialog']//*[contains(text(), 'Client ID')]")


def show_connection_fields(screen: Screen) -> None:
    """Show the fields of the connection's extra, on a high screen."""
    screen.resize({"width": 1400, "height": 1600, "deviceScaleFactor": 1, "mobile": False})
    show_connection(screen)
    screen.click("//*[@role='dialog']//button[contains(., 'Extra Fields') and not(contains(., 'JSON'))]")
    screen.element("//*[@role='dialog']//*[contains(text(), 'Organization ID')]")


def shots(run_id: str) -> dict[str, Callable[[Screen], None]]:
    """Return the function that shows the content of each screenshot; those that change something are last."""
    return {
        "overview": show_overview,
        "overview-dark": lambda screen: show_overview(screen, theme="dark"),
        "overview-phone": lambda screen: show_overview(screen, size=PHONE),
        "coverage": show_coverage,
        "coverage-dark": lambda screen: show_coverage(screen, theme="dark"),
        "coverage-phone": lambda screen: show_coverage(screen, size=PHONE),
        "grid": show_grid,
        "buttons": lambda screen: show_buttons(screen, run_id=run_id),
        "connection": show_connection,
        "connection-fields": show_connection_fields,
        "preview": show_preview,
        "progress": show_progress,
    }


def take_all(screen: Screen, *, run_id: str) -> list[str]:
    """Write all screenshots; return the names of those whose content did not appear."""
    from selenium.common.exceptions import WebDriverException

    failed = []
    for name, show in shots(run_id).items():
        screen.resize(None)
        try:
            show(screen)
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


@contextmanager
def running(midnight: datetime) -> Iterator[tuple[LocalAirflow, EmulatedFlowService]]:
    """Start Airflow with the DAGs of the dataflows, and the emulator; remove both afterwards."""
    home = Path(tempfile.mkdtemp(prefix="flowservice-screenshots-"))
    dags = home / "dags"
    dags.mkdir()
    (dags / "dataflows.py").write_text(_DAGS.format(rows=[each.row(midnight) for each in DATAFLOWS]))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        supervisor = stack.enter_context(Supervisor(log_folder=home / "logs"))
        supervisor.remove_at_end(home)
        emulator = start_emulator(supervisor, cwd=home, options={"--run-seconds": "2"})
        connections = {"flowservice_default": emulator.connection}
        airflow = LocalAirflow(home=home, dags_folder=dags, connections=connections, remove_home=True, progress=print)
        stack.enter_context(airflow)
        airflow.wait_healthy()
        for each in DATAFLOWS:
            airflow.wait_for_dag(each.dag_id)
        yield airflow, emulator


def fill(airflow: LocalAirflow, emulator: EmulatedFlowService, *, midnight: datetime) -> None:
    """Write the history of the dataflows, and let the DAGs that are not paused ingest the last day."""
    for each in DATAFLOWS:
        flow = {"id": each.flow_id, "name": each.name, "kind": "file", "state": "enabled"}
        requests.post(f"{emulator.url}/_emulator/flows", json=flow, timeout=30).raise_for_status()
        each.history(midnight).write(airflow.environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"])
    unpaused = [each.dag_id for each in DATAFLOWS if each.last == 2]
    for dag_id in unpaused:
        airflow.unpause(dag_id)
    for dag_id in unpaused:
        wait_until(lambda dag_id=dag_id: has_ended(airflow, dag_id, midnight), what=f"the last day of {dag_id}")


def has_ended(airflow: LocalAirflow, dag_id: str, logical_date: datetime) -> bool:
    """Return whether the scheduled DAG run of a date has succeeded."""
    response = airflow.rest.call("GET", f"/dags/{dag_id}/dagRuns/{quote(scheduled_id(logical_date))}")
    return response.ok and response.json()["state"] == "success"


def scheduled_id(logical_date: datetime) -> str:
    """Return the id that Airflow gives to a scheduled DAG run."""
    return f"scheduled__{logical_date.isoformat()}"


def main(folder: Path) -> None:
    """Write the screenshots into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    midnight = datetime.now(timezone.utc).replace(hour=0, minute=0, second=0, microsecond=0)
    with running(midnight) as (airflow, emulator):
        fill(airflow, emulator, midnight=midnight)
        with browser() as driver:
            failed = take_all(Screen(driver, airflow=airflow, folder=folder), run_id=scheduled_id(midnight))
    if failed:
        sys.exit(f"These did not appear, see the files with -failed: {', '.join(failed)}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(str(__doc__))
    main(Path(sys.argv[1]))
