# SPDX-License-Identifier: Apache-2.0
"""`start_from_trigger=True` on mapped sensors and in mapped task groups. Airflow starts mapped sensors on a worker."""

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
    """Each sensor waits for the flow run that its input names.

    With `.expand()`, a sensor starts on a worker and ends in the triggerer. In a mapped task group, it needs no worker
    since Airflow 3.3.
    """
    release("e2e_mapped_sensor")
    tell("outcomes", flow_id=flow_of("e2e_mapped_sensor"), status="success", run_s=5, times=3)
    run_id = airflow.trigger("e2e_mapped_sensor")
    airflow.wait_for_runs("e2e_mapped_sensor", count=1)

    tasks = airflow.task_instances("e2e_mapped_sensor", run_id)
    sensors = {(each["task_id"], each["map_index"]): each for each in tasks if each["task_id"].endswith("wait")}
    expected = {("wait", 0): HOURS[0], ("wait", 1): HOURS[1], ("ingest.wait", 0): HOURS[2]}
    assert dict.fromkeys(expected, ("success", 1)) == {
        key: (sensor["state"], sensor["try_number"]) for key, sensor in sensors.items()
    }
    assert {"wait": True, "ingest.wait": versions.version() < (3, 3)} == {
        task_id: sensor["pid"] is not None for (task_id, _), sensor in sensors.items()
    }

    def xcom(sensor: tuple[str, int], key: str) -> Any:
        task_id, map_index = sensor
        return airflow.xcom("e2e_mapped_sensor", run_id, task_id, key, map_index=map_index)

    flow_runs = {sensor: xcom(sensor, "flow_run") for sensor in expected}
    assert expected == {sensor: flow_run["window_start"] for sensor, flow_run in flow_runs.items()}
    assert {sensor: flow_run["id"] for sensor, flow_run in flow_runs.items()} == {
        sensor: xcom(sensor, "return_value") for sensor in expected
    }
