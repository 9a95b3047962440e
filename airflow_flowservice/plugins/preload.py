# SPDX-License-Identifier: Apache-2.0
"""Import what tasks need in the scheduler, from which the LocalExecutor forks the process of each task.

A forked process has the modules of its parent. Without this, each task imports about seventy modules again, which
takes longer than its messages and requests.
"""

from __future__ import annotations

import importlib
import logging
import multiprocessing

from airflow.configuration import conf

log = logging.getLogger(__name__)

# A task of this package imports these modules, or modules that these import. A test compares them.
MODULES = (
    "requests",
    "airflow_flowservice.operators",
    "airflow_flowservice.sensors",
    "airflow_flowservice.hooks",
    "airflow_flowservice.triggers",
    "airflow_flowservice._airflow.ledgers",
    "airflow_flowservice._airflow.variable_ledger",
    "airflow_flowservice.api.client",
    "airflow_flowservice.api.connection_settings",
    "airflow_flowservice.runs.create_once",
    "airflow_flowservice.windows.cron",
    "airflow_flowservice.windows.requested",
    "airflow_flowservice.windows.schedule",
)


def preload() -> None:
    """Import the modules, if this is the main process of a scheduler with a LocalExecutor.

    An error never affects the scheduler: the tasks then import the modules themselves, and report it.
    """
    # A process that the executor has started is too late: the modules would be imported for one task.
    if multiprocessing.parent_process() is not None:
        return
    if "LocalExecutor" not in conf.get("core", "executor", fallback=""):
        return
    try:
        for name in MODULES:
            importlib.import_module(name)
    except Exception as error:
        log.debug("The modules of tasks cannot be imported in the scheduler: %s", error)
