# SPDX-License-Identifier: Apache-2.0
"""Outcomes and faults that the tests of `create_once` share."""

from __future__ import annotations

from typing import Any

from airflow_flowservice.api.models import FlowRunStatus
from airflow_flowservice.exceptions import NoAnswerError
from airflow_flowservice.runs.intent import Outcome

SUCCESS, FAILED = FlowRunStatus.SUCCESS, FlowRunStatus.FAILED
LOST = ("lost", NoAnswerError("the connection was reset"))
RECORDED = ("recorded", NoAnswerError("the connection was reset"))


def created(number: int = 1) -> Outcome:
    return Outcome(flow_run_id=f"run-{number}", how="created")


def resumed(number: int = 1) -> Outcome:
    return Outcome(flow_run_id=f"run-{number}", how="resumed")


def adopted(number: int = 1) -> Outcome:
    return Outcome(flow_run_id=f"run-{number}", how="adopted")


def ids(world: Any) -> list[str]:
    return [run.id for run in world.service.runs]
