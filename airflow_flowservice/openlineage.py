"""What a task's flow run read and wrote, for OpenLineage (the extra `openlineage`).

Airflow's OpenLineage listener asks for it when a task has ended; nothing imports this module before. A flow's source
and target connections are read from Flow Service then, in a few seconds at most, and what cannot be found out is named
by its id. Nothing here can fail a task.
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
    from airflow_flowservice.api.data_connections import SourceConnection, TargetConnection

T = TypeVar("T")

log = logging.getLogger(__name__)

FACET = "flowservice_flowRun"

# The listener gives up after ten seconds ([openlineage] execution_timeout), and drops the event then.
_SECONDS = 5.0
_SECONDS_OF_A_REQUEST = 3.0


@attrs.define
class FlowRunFacet(RunFacet):  # type: ignore[misc,unused-ignore]
    """The flow run of a task: its window and counts, as in the XCom `flow_run`.

    Times are ISO 8601, UTC. Errors are Adobe's codes alone, since their messages may hold the names of hosts.
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
    """The two ends of a dataflow, as far as they could be found out.

    :param namespace: of the sandbox: `aep://{organization}/{sandbox}`.
    """

    namespace: str
    source_ids: tuple[str, ...] = ()
    target_ids: tuple[str, ...] = ()
    sources: Mapping[str, SourceConnection | None]
    targets: Mapping[str, TargetConnection | None]

    def inputs(self) -> list[InputDataset]:
        """The tables or paths that are read, in a namespace for each credential; else the source connections."""
        return [self._input(source_id) for source_id in self.source_ids]

    def outputs(self, facets: dict[str, Any]) -> list[OutputDataset]:
        """The datasets in the data lake; else the target connections."""
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
    """What a task's flow run read and wrote; None when the task has no flow run, or on any error.

    :param task: an operator or sensor of this package, after it has run in this process.
    """
    try:
        summary = task.flow_run_summary or _pushed(task, ti)
        if not summary:
            return None
        return _lineage(summary, _ends(summary, task.flowservice_conn_id))
    except Exception as error:
        log.info("OpenLineage is not told of the flow run: %s: %s", type(error).__name__, error)
        return None


def _pushed(task: Any, ti: Any) -> FlowRunSummary | None:
    """Return the summary that the process before the deferral pushed."""
    if not task.was_deferred:
        return None
    return FlowRunSummary.from_json(task_context.read_xcom(ti, key=task_context.FLOW_RUN_KEY))


def _lineage(summary: FlowRunSummary, ends: Ends | None) -> OperatorLineage[Any, Any]:
    return OperatorLineage(
        inputs=ends.inputs() if ends else [],
        outputs=ends.outputs(_statistics(summary)) if ends else [],
        run_facets={FACET: _facet(summary)},
    )


def _facet(summary: FlowRunSummary) -> FlowRunFacet:
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


def _statistics(summary: FlowRunSummary) -> dict[str, Any]:
    rows, size = summary.output_records, summary.output_bytes
    if rows is None and size is None:
        return {}
    facet = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(rowCount=rows, size=size)
    return {"outputStatistics": facet}


def _ends(summary: FlowRunSummary, conn_id: str) -> Ends | None:
    """The dataflow's two ends; None when even the dataflow cannot be read in time."""
    flow_id = summary.flow_id
    if not flow_id:
        return None
    connection = connections.get_connection(conn_id)
    client = client_of(connection, timeout_s=_SECONDS_OF_A_REQUEST, max_attempts=1)
    return _in_time(lambda: _read(client, flow_id))


def _read(client: FlowServiceClient, flow_id: str) -> Ends:
    flow = client.get_flow(flow_id)
    return Ends(
        namespace=f"{SCHEME}://{short(client.org_id)}/{client.sandbox}",
        source_ids=flow.source_connection_ids,
        target_ids=flow.target_connection_ids,
        sources={each: _tried(client.get_source_connection, each) for each in flow.source_connection_ids},
        targets={each: _tried(client.get_target_connection, each) for each in flow.target_connection_ids},
    )


def _tried(read: Callable[[str], T], identifier: str) -> T | None:
    try:
        return read(identifier)
    except Exception as error:
        log.info("For OpenLineage, %s is named by its id alone: %s", identifier, error)
        return None


def _in_time(work: Callable[[], T]) -> T | None:
    """The answer of some blocking work, or None after some seconds; its thread is left alone then."""
    answers: queue.Queue[T | Exception] = queue.Queue()

    def working() -> None:
        try:
            answers.put(work())
        except Exception as error:
            answers.put(error)

    threading.Thread(target=working, name="flowservice-lineage", daemon=True).start()
    try:
        answer = answers.get(timeout=_SECONDS)
    except queue.Empty:
        log.info("OpenLineage is not told what the dataflow reads and writes: no answer in %g seconds", _SECONDS)
        return None
    if isinstance(answer, Exception):
        log.info("OpenLineage is not told what the dataflow reads and writes: %s", answer)
        return None
    return answer
