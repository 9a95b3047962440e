# SPDX-License-Identifier: Apache-2.0
"""Report the inputs and outputs of a task's flow run to OpenLineage (the extra `openlineage`).

Airflow's OpenLineage listener requests them when a task has ended; no module imports this one earlier. This module then
reads the flow's source and target connections from Flow Service, within a few seconds. If a connection cannot be read,
its id is the name of the dataset. An error in this module never fails a task.
Facets: https://openlineage.io/docs/spec/facets/
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
from airflow.providers.openlineage.extractors import OperatorLineage
from openlineage.client.event_v2 import InputDataset, OutputDataset
from openlineage.client.facet_v2 import RunFacet, output_statistics_output_dataset

from airflow_flowservice._airflow import connections, task_context
from airflow_flowservice.assets import SCHEME, short
from airflow_flowservice.hooks import client_of
from airflow_flowservice.runs.summary import FlowRunSummary
from airflow_flowservice.windows.window import window_to_json

if TYPE_CHECKING:
    from airflow_flowservice.api.client import FlowServiceClient
    from airflow_flowservice.api.models import SourceConnection, TargetConnection

T = TypeVar("T")

log = logging.getLogger(__name__)

FACET = "flowservice_flowRun"

# The listener stops after ten seconds ([openlineage] execution_timeout), and drops the event.
_TIMEOUT_S = 5.0
_REQUEST_TIMEOUT_S = 3.0


@attrs.define
class FlowRunFacet(RunFacet):  # type: ignore[misc,unused-ignore]
    """The flow run of a task: its window and counts, as in the XCom `flow_run`.

    Times are ISO 8601, UTC. Errors are only Adobe's codes, because the messages may contain names of hosts.
    """

    flowRunId: str
    flowId: str | None
    status: str
    windowStart: str | None
    windowEnd: str | None
    inputRecords: int | None
    outputRecords: int | None
    failedRecords: int | None
    inputBytes: int | None
    outputBytes: int | None
    inputFiles: int | None
    outputFiles: int | None
    errorCodes: list[str]
    url: str | None


@dataclass(frozen=True, kw_only=True)
class Ends:
    """The sources and targets of a dataflow; None for a connection that could not be read.

    :param namespace: namespace of the sandbox: `aep://{organization}/{sandbox}`.
    """

    namespace: str
    source_ids: tuple[str, ...] = ()
    target_ids: tuple[str, ...] = ()
    sources: Mapping[str, SourceConnection | None]
    targets: Mapping[str, TargetConnection | None]

    def inputs(self) -> list[InputDataset]:
        """Return the tables or paths of the sources, with one namespace per base connection.

        If a table or path is not known, the source connection is returned.
        """
        return [self._input(source_id) for source_id in self.source_ids]

    def outputs(self, facets: dict[str, Any]) -> list[OutputDataset]:
        """Return the datasets in the data lake; if a dataset is not known, the target connection."""
        return [self._output(target_id, facets) for target_id in self.target_ids]

    def _input(self, source_id: str) -> InputDataset:
        source = self.sources.get(source_id)
        if source is None or source.data is None:
            return InputDataset(namespace=self.namespace, name=f"sourceConnections/{source_id}")
        folder = f"connections/{source.base_connection_id}" if source.base_connection_id else "sourceConnections"
        return InputDataset(namespace=f"{self.namespace}/{folder}", name=source.data)

    def _output(self, target_id: str, facets: dict[str, Any]) -> OutputDataset:
        target = self.targets.get(target_id)
        name = target.dataset_id if target and target.dataset_id else f"targetConnections/{target_id}"
        return OutputDataset(namespace=self.namespace, name=name, outputFacets=facets)


def lineage_of(task: Any, ti: Any) -> OperatorLineage[Any, Any] | None:
    """Return the lineage of a task's flow run; None if the task has no flow run, or on any error.

    :param task: an operator or sensor of this package that has run in this process.
    """
    try:
        summary = task.flow_run_summary or _summary_from_xcom(task, ti)
        if not summary:
            return None
        return _lineage(summary, _ends(summary, task.flowservice_conn_id))
    except Exception as error:
        log.info("The OpenLineage event does not contain the flow run: %s: %s", type(error).__name__, error)
        return None


def _summary_from_xcom(task: Any, ti: Any) -> FlowRunSummary | None:
    """Return the summary that the task pushed before its deferral; None if it was not deferred."""
    if not task.was_deferred:
        return None
    return FlowRunSummary.from_json(task_context.read_xcom(ti, key=task_context.FLOW_RUN_KEY))


def _lineage(summary: FlowRunSummary, ends: Ends | None) -> OperatorLineage[Any, Any]:
    return OperatorLineage(
        inputs=ends.inputs() if ends else [],
        outputs=ends.outputs(_output_facets(summary)) if ends else [],
        run_facets={FACET: _run_facet(summary)},
    )


def _run_facet(summary: FlowRunSummary) -> FlowRunFacet:
    window = window_to_json(summary.window)
    return FlowRunFacet(
        flowRunId=summary.id,
        flowId=summary.flow_id,
        status=summary.status,
        windowStart=window["window_start"],
        windowEnd=window["window_end"],
        inputRecords=summary.input_records,
        outputRecords=summary.output_records,
        failedRecords=summary.failed_records,
        inputBytes=summary.input_bytes,
        outputBytes=summary.output_bytes,
        inputFiles=summary.input_files,
        outputFiles=summary.output_files,
        errorCodes=[error.code for error in summary.errors if error.code],
        url=summary.url,
    )


def _output_facets(summary: FlowRunSummary) -> dict[str, Any]:
    rows, size = summary.output_records, summary.output_bytes
    if rows is None and size is None:
        return {}
    facet = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(rowCount=rows, size=size)
    return {"outputStatistics": facet}


def _ends(summary: FlowRunSummary, conn_id: str) -> Ends | None:
    """Return the sources and targets of the dataflow; None if the dataflow cannot be read in time."""
    flow_id = summary.flow_id
    if not flow_id:
        return None
    connection = connections.get_connection(conn_id)
    client = client_of(connection, timeout_s=_REQUEST_TIMEOUT_S, max_attempts=1)
    return _within_time_limit(lambda: _read_ends(client, flow_id))


def _read_ends(client: FlowServiceClient, flow_id: str) -> Ends:
    flow = client.get_flow(flow_id)
    return Ends(
        namespace=f"{SCHEME}://{short(client.org_id)}/{client.sandbox}",
        source_ids=flow.source_connection_ids,
        target_ids=flow.target_connection_ids,
        sources={each: _read_or_none(client.get_source_connection, each) for each in flow.source_connection_ids},
        targets={each: _read_or_none(client.get_target_connection, each) for each in flow.target_connection_ids},
    )


def _read_or_none(read: Callable[[str], T], identifier: str) -> T | None:
    try:
        return read(identifier)
    except Exception as error:
        log.info(
            "OpenLineage: the connection %s cannot be read, so the dataset's name is its id: %s", identifier, error
        )
        return None


def _within_time_limit(work: Callable[[], T]) -> T | None:
    """Run a blocking function in a thread and return its result; return None on an error or after a time limit.

    After the time limit, the thread continues as daemon.
    """
    results: queue.Queue[T | Exception] = queue.Queue()

    def run() -> None:
        try:
            results.put(work())
        except Exception as error:
            results.put(error)

    threading.Thread(target=run, name="flowservice-lineage", daemon=True).start()
    try:
        result = results.get(timeout=_TIMEOUT_S)
    except queue.Empty:
        log.info("The OpenLineage event does not contain inputs and outputs: no response in %g seconds", _TIMEOUT_S)
        return None
    if isinstance(result, Exception):
        log.info("The OpenLineage event does not contain inputs and outputs: %s", result)
        return None
    return result
