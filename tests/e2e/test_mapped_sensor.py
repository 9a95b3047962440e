"""`start_from_trigger=True` on sensors of which there are several: Airflow begins mapped ones on a worker."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from airflow_flowservice._airflow import versions

if TYPE_CHECKING:
    from airflow_flowservice.demo.local_airflow import LocalAirflow

HOURS = ["2026-02-01T00:00:00Z", "2026-02-01T01:00:00Z", "2026-02-01T02:00:00Z"]


def test_mapped_sensors_wait_for_their_own_runs(
    airflow: LocalAirflow, release: Callable[..., None], tell: Callable[..., Any], flow_of: Callable[[str], str]
) -> None:
    """With `.expand()` they begin on a worker and end in the triggerer; in a mapped group they need no worker (3.3)."""
    release("e2e_mapped_sensor")
    tell("outcomes", flow_id=flow_of("e2e_mapped_sensor"), status="success", run_s=5, times=3)
    run_id = airflow.trigger("e2e_mapped_sensor")
    airflow.wait_for_runs("e2e_mapped_sensor", count=1)

    tasks = airflow.task_instances("e2e_mapped_sensor", run_id)
    sensors = {(each["task_id"], each["map_index"]): each for each in tasks if each["task_id"].endswith("wait")}
    expected = {("wait", 0): HOURS[0], ("wait", 1): HOURS[1], ("ingest.wait", 0): HOURS[2]}
    assert dict.fromkeys(expected, ("success", 1)) == {
        where: (sensor["state"], sensor["try_number"]) for where, sensor in sensors.items()
    }
    assert {"wait": True, "ingest.wait": versions.version() < (3, 3)} == {
        task_id: sensor["pid"] is not None for (task_id, _), sensor in sensors.items()
    }

    def xcom(where: tuple[str, int], key: str) -> Any:
        return airflow.xcom("e2e_mapped_sensor", run_id, where[0], key, map_index=where[1])

    waited = {where: xcom(where, "flow_run") for where in expected}
    assert expected == {where: flow_run["window_start"] for where, flow_run in waited.items()}
    assert {where: flow_run["id"] for where, flow_run in waited.items()} == {
        where: xcom(where, "return_value") for where in expected
    }
