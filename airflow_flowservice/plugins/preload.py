# SPDX-License-Identifier: Apache-2.0
"""Import modules in the processes of Airflow that fork others, so that each fork has them already.

- The LocalExecutor forks the process of each task from the scheduler. Otherwise, each task imports about seventy
  modules again, which takes longer than its messages and requests.
- The DAG processor forks a process for each DAG file that it parses. It imports Airflow's modules before, but no
  others.
"""

from __future__ import annotations

import importlib
import logging
import multiprocessing

from airflow.configuration import conf

log = logging.getLogger(__name__)

_OF_DAG_FILES = ("airflow_flowservice.operators", "airflow_flowservice.sensors")
# A task of this package imports these modules, or modules that these import. A test compares them.
_OF_TASKS = (
    *_OF_DAG_FILES,
    "requests",
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


def preload(component: str) -> None:
    """Import the modules, if this is the main process of a component that forks others.

    An error never affects the component: its forks then import the modules themselves, and report it.

    :param component: name of Airflow's command that started this process.
    """
    # A process that the executor has started is too late: the modules would be imported for one task.
    if multiprocessing.parent_process() is not None:
        return
    try:
        for name in _modules(component):
            importlib.import_module(name)
    except Exception as error:
        log.debug("The modules of %s cannot be imported before its forks: %s", component, error)


def _modules(component: str) -> tuple[str, ...]:
    if component == "dag-processor":
        return _OF_DAG_FILES
    is_local = "LocalExecutor" in conf.get("core", "executor", fallback="")
    return _OF_TASKS if component == "scheduler" and is_local else ()
