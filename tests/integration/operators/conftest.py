# SPDX-License-Identifier: Apache-2.0
"""Fixtures: Airflow's task runner, the emulator over HTTP, and a supervisor in memory between them.

`worker.task(Operator, ...)` returns a task of a DAG run. `.run()` performs one attempt with Airflow's task
runner exactly as on a worker: it renders, executes, pushes XComs and decides about a retry. Only the
messages to Airflow's API server go to :class:`Supervisor` instead.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from airflow_versions import VERSION, decode_arguments, decode_xcom, encode_arguments, import_string, known_fields

from airflow_flowservice.emulator import Settings, running_emulator
from airflow_flowservice.emulator.server import Emulator

FLOW = "3abea21c-7e36-4be1-bec1-d3bad0e3e0de"
# Flow runs begin some seconds after their creation, so the emulator's clock is fast.
SPEED = 20.0
_ANSWER_TRIGGERS = (
    "airflow.providers.standard.triggers.hitl.HITLTrigger",
    "airflow_flowservice._airflow.answer_trigger.AnswerTrigger",
)
_CREATING = ("OnDemandFlowRunOperator", "RetriggerFlowRunOperator")


@dataclass
class Clock:
    """Clock of the emulator: fast, stopped, or moved by the test."""

    speed: float = SPEED
    _since: float = field(default_factory=time.time)
    _at: float = field(default_factory=time.time)

    def __call__(self) -> float:
        return self._at + (time.time() - self._since) * self.speed

    def set(self, *, at: float | None = None, speed: float | None = None) -> None:
        now = self() if at is None else at
        self._since, self._at = time.time(), now
        self.speed = self.speed if speed is None else speed

    def stop(self) -> None:
        """Stop the clock until the test moves it."""
        self.set(speed=0.0)

    def advance(self, seconds: float) -> None:
        self.set(at=self() + seconds)


class Supervisor:
    """Supervisor that handles Airflow's messages of the task runner, and keeps the API server's data in memory."""

    def __init__(self) -> None:
        self.connections: dict[str, dict[str, Any]] = {}
        self.stored_xcoms: dict[tuple[str, str], Any] = {}
        self.task_state: dict[str, Any] = {}
        self.earlier_runs: list[dict[str, Any]] = []
        self.earlier_xcoms: dict[tuple[str, str, str], Any] = {}
        self.rendered: dict[str, Any] = {}
        self.assets: dict[str, str] = {}  # names by URI
        self.sent: list[Any] = []
        self.first_poke: datetime | None = None
        self.task_instance_state: str | None = "deferred"  # only triggers read it
        self.is_retried = False
        self.refused: list[Any] = []
        self.variables: dict[str, str] = {}
        self.descriptions: dict[str, str] = {}  # of the Variables
        self.questions: dict[Any, dict[str, Any]] = {}  # rows of Required Actions by task instance

    def send(self, msg: Any, *args: Any, **kwargs: Any) -> Any:
        from airflow.sdk.execution_time.comms import OKResponse

        self.sent.append(msg)
        answer = getattr(self, f"_on_{type(msg).__name__}", None)
        return answer(msg) if answer else OKResponse(ok=True)

    async def asend(self, msg: Any) -> Any:
        return self.send(msg)

    def _on_GetConnection(self, msg: Any) -> Any:
        from airflow.sdk.exceptions import ErrorType
        from airflow.sdk.execution_time.comms import ConnectionResult, ErrorResponse

        if (found := self.connections.get(msg.conn_id)) is None:
            return ErrorResponse(error=ErrorType.CONNECTION_NOT_FOUND, detail={"conn_id": msg.conn_id})
        values = {**dict.fromkeys(("host", "schema", "login", "password", "port")), **found}
        return ConnectionResult(conn_id=msg.conn_id, **{**values, "extra": json.dumps(found.get("extra", {}))})

    def _on_SetXCom(self, msg: Any) -> None:
        self.stored_xcoms[msg.task_id, msg.key] = msg.value

    def _on_GetXCom(self, msg: Any) -> Any:
        from airflow.sdk.execution_time.comms import XComResult

        if msg.run_id != "run":
            return XComResult(key=msg.key, value=self.earlier_xcoms.get((msg.run_id, msg.task_id, msg.key)))
        return XComResult(key=msg.key, value=self.stored_xcoms.get((msg.task_id, msg.key)))

    def _on_GetTaskRescheduleStartDate(self, msg: Any) -> Any:
        from airflow.sdk.execution_time.comms import TaskRescheduleStartDate

        return TaskRescheduleStartDate(start_date=self.first_poke)

    def _on_GetTaskStates(self, msg: Any) -> Any:
        from airflow.sdk.execution_time.comms import TaskStatesResult

        [task_id], [run_id] = msg.task_ids, msg.run_ids
        return TaskStatesResult(task_states={run_id: {task_id: self.task_instance_state}})

    def _on_GetPreviousDagRun(self, msg: Any) -> Any:
        from airflow.sdk.execution_time.comms import DagRun, PreviousDagRunResult

        before = [run for run in self.earlier_runs if run["logical_date"] < msg.logical_date]
        last = max(before, key=lambda run: run["logical_date"], default=None)
        return PreviousDagRunResult(
            dag_run=None if last is None else DagRun(dag_id=msg.dag_id, **known_fields(DagRun, last))
        )

    def _on_GetXComSequenceSlice(self, msg: Any) -> Any:
        from airflow.sdk.execution_time.comms import XComSequenceSliceResult

        found = self.stored_xcoms.get((msg.task_id, msg.key))
        return XComSequenceSliceResult(root=[] if found is None else [found])

    def _on_GetTaskStateStore(self, msg: Any) -> Any:
        from airflow.sdk.exceptions import ErrorType
        from airflow.sdk.execution_time.comms import ErrorResponse, TaskStateStoreResult

        if msg.key not in self.task_state:
            return ErrorResponse(error=ErrorType.TASK_STORE_NOT_FOUND, detail={"key": msg.key})
        return TaskStateStoreResult(value=self.task_state[msg.key])

    def _on_SetTaskStateStore(self, msg: Any) -> None:
        self.task_state[msg.key] = json.loads(json.dumps(msg.value))

    def _on_DeleteTaskStateStore(self, msg: Any) -> None:
        self.task_state.pop(msg.key, None)

    def _on_GetVariable(self, msg: Any) -> Any:
        from airflow.sdk.exceptions import ErrorType
        from airflow.sdk.execution_time.comms import ErrorResponse, VariableResult

        if msg.key not in self.variables:
            return ErrorResponse(error=ErrorType.VARIABLE_NOT_FOUND, detail={"key": msg.key})
        return VariableResult(key=msg.key, value=self.variables[msg.key])

    def _on_GetVariableKeys(self, msg: Any) -> Any:
        from airflow.sdk.execution_time.comms import VariableKeysResult

        keys = sorted(key for key in self.variables if key.startswith(msg.prefix or ""))
        return VariableKeysResult(keys=keys[msg.offset : msg.offset + msg.limit], total_entries=len(keys))

    def _on_PutVariable(self, msg: Any) -> None:
        self.variables[msg.key] = msg.value
        self.descriptions[msg.key] = msg.description

    def _on_DeleteVariable(self, msg: Any) -> Any:
        from airflow.sdk.execution_time.comms import OKResponse

        self.variables.pop(msg.key, None)
        return OKResponse(ok=True)

    def _on_CreateHITLDetailPayload(self, msg: Any) -> Any:
        """Do as the API server: keep the first options, and remove an answer (seen on 3.1.8 to 3.3.2)."""
        from airflow.sdk.execution_time.comms import HITLDetailRequestResult

        row = self.questions.setdefault(msg.ti_id, msg.model_dump(exclude={"type"}))
        row["answer"] = None
        return HITLDetailRequestResult(**{key: value for key, value in row.items() if key != "answer"})

    def _on_GetHITLDetailResponse(self, msg: Any) -> Any:
        from airflow.sdk.api.datamodels._generated import HITLDetailResponse

        answer = self.questions[msg.ti_id]["answer"]
        return HITLDetailResponse(response_received=answer is not None, **(answer or {"responded_at": None}))

    def _on_UpdateHITLDetail(self, msg: Any) -> Any:
        self.answer(msg.ti_id, msg.chosen_options[0], user=None)
        return self._on_GetHITLDetailResponse(msg)

    def answer(self, ti_id: Any, option: str, *, user: str | None) -> None:
        """Store the answer of a user, or the default that Airflow stores after the time limit."""
        row = self.questions[ti_id]
        assert row["answer"] is None, "Airflow refuses a second answer with 409"
        assert option in row["options"]
        row["answer"] = {
            "responded_at": datetime.now(timezone.utc),
            "responded_by_user": {"id": user, "name": user} if user else None,
            "chosen_options": [option],
            "params_input": {},
        }

    def _on_ValidateInletsAndOutlets(self, msg: Any) -> Any:
        from airflow.sdk.execution_time.comms import InactiveAssetsResult

        return InactiveAssetsResult(inactive_assets=[])

    def _on_GetAssetByUri(self, msg: Any) -> Any:
        return self._asset(next((uri for uri in self.assets if uri == msg.uri), None))

    def _on_GetAssetByName(self, msg: Any) -> Any:
        return self._asset(next((uri for uri, name in self.assets.items() if name == msg.name), None))

    def _asset(self, uri: str | None) -> Any:
        from airflow.sdk.exceptions import ErrorType
        from airflow.sdk.execution_time.comms import AssetResult, ErrorResponse

        if uri is None:
            return ErrorResponse(error=ErrorType.ASSET_NOT_FOUND)
        return AssetResult(name=self.assets[uri], uri=uri, group="asset")

    def _on_SetRenderedFields(self, msg: Any) -> None:
        from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
        from airflow.sdk.execution_time.comms import ErrorResponse

        if self.is_retried and VERSION < (3, 3):  # the attempt has another id in the database by then
            self.refused.append(msg)
            raise AirflowRuntimeError(ErrorResponse(error=ErrorType.API_SERVER_ERROR, detail={"status_code": 404}))
        self.rendered = dict(msg.rendered_fields)


@dataclass(frozen=True)
class Ended:
    """End of an attempt: Airflow's state of the task, the message to Airflow, and the error."""

    state: str
    message: Any = None
    error: BaseException | None = None


class Task:
    """Task of a DAG run, with its attempts."""

    def __init__(
        self,
        worker: Worker,
        operator: Any,
        dates: dict[str, Any],
        *,
        store: bool,
        deferral_timeout: bool,
        events: list[Any],
        map_index: int = -1,
    ):
        self.worker = worker
        self.supervisor = worker.supervisor
        self.operator = operator
        self.dates = dates
        self.store = store
        self.deferral_timeout = deferral_timeout
        self.events = events
        self.map_index = map_index
        self.keeps_method = False
        self.left: tuple[str, dict[str, Any]] | None = None
        self.xcom_keys: list[str] = []
        self.try_number = 0
        self.max_tries = operator.retries
        self.rescheduled = 0
        self.triggers: list[Any] = []
        self.began = datetime.now(timezone.utc)
        # A retry has another id; Airflow's database moves the question to it.
        self.id = uuid4()

    def run(self, **upstream: Any) -> Ended:
        """Perform one attempt up to its end, a retry or a reschedule. If the task defers, also run its trigger.

        :param upstream: return values of upstream tasks.
        """
        left = self.left if self.keeps_method else None
        self.xcom_keys = []
        if not left:
            self._forget_xcoms()
        for task_id, value in upstream.items():
            self.supervisor.stored_xcoms[task_id, "return_value"] = value
        self.try_number += 1
        self.rescheduled = 0
        self.supervisor.first_poke = datetime.now(timezone.utc)
        if left:
            ended = self.step(*left)
        else:
            ended = self._started_by_the_scheduler() if self.operator.start_from_trigger else self.step()
        return self._continued(ended)

    @property
    def question(self) -> dict[str, Any]:
        """Return the question that Airflow shows under Required Actions."""
        return self.supervisor.questions[self.id]

    def answer(self, option: str, *, user: str | None = "jane") -> Ended:
        """Answer the question of the waiting task, and perform the attempt to its end."""
        self.supervisor.answer(self.id, option, user=user)
        return self._continued(self.waiting)

    def _continued(self, ended: Ended) -> Ended:
        """Continue a waiting task, unless it waits for a person."""
        is_asking = "awaiting_input" == ended.state or str(getattr(ended.message, "classpath", "")) in _ANSWER_TRIGGERS
        if not is_asking:
            return self._resumed(ended.message) if ended.state == "deferred" else ended
        self.waiting = ended
        if self.question["answer"] is None:
            return Ended("asking", ended.message)
        return self._continued(self.step(ended.message.next_method, self._after_answer(ended)))

    def _after_answer(self, ended: Ended) -> dict[str, Any]:
        """Return the arguments with which Airflow resumes the task: by the API server, or by the trigger."""
        arguments = decode_arguments(json.loads(json.dumps(ended.message.next_kwargs)))
        if ended.state == "deferred":
            return {**arguments, "event": self.trigger(ended.message).payload}
        answer = self.question["answer"]
        return {**arguments, "event": {**answer, "timedout": answer["responded_by_user"] is None}}

    def _resumed(self, deferred: Any) -> Ended:
        if self.deferral_timeout:
            self.left = ("__fail__", {"error": "Trigger timeout"})
            return self.step(*self.left)
        event = self.trigger(deferred)
        if type(event).__name__ == "TaskSuccessEvent":
            return Ended("success", event)
        self.left = (deferred.next_method, {"event": json.loads(json.dumps(event.payload))})
        return self.step(*self.left)

    def _forget_xcoms(self) -> None:
        """Delete the task's XComs, as the task runner does first."""
        own = self.operator.task_id
        self.xcom_keys = [name for task_id, name in self.supervisor.stored_xcoms if task_id == own]
        for name in self.xcom_keys:
            del self.supervisor.stored_xcoms[own, name]

    def _started_by_the_scheduler(self) -> Ended:
        """Defer as the scheduler does for `start_from_trigger`, without rendering the arguments."""
        start = self.operator.start_trigger_args
        deferred = SimpleNamespace(
            classpath=start.trigger_cls, trigger_kwargs=start.trigger_kwargs, next_method=start.next_method
        )
        return Ended("deferred", deferred)

    def step(self, next_method: str | None = None, next_kwargs: dict[str, Any] | None = None) -> Ended:
        """Run one worker process."""
        from airflow.sdk.execution_time import task_runner

        ti = self._instance(next_method, encode_arguments(next_kwargs) if next_kwargs else None)
        context = ti.get_template_context()
        if not self.store:
            context.pop("task_state_store", None)
        self.supervisor.is_retried = False
        state, message, error = task_runner.run(ti, context, self.worker.log)
        self.supervisor.is_retried = state == "up_for_retry"
        context["exception"] = error
        task_runner.finalize(ti, state, context, self.worker.log, error)
        self.last = ti.task
        self.rescheduled += state == "up_for_reschedule"
        return Ended(str(state.value), message, error)

    def trigger(self, deferred: Any) -> Any:
        """Make the trigger from its serialized form and run it, as the triggerer does."""
        kwargs = decode_arguments(json.loads(json.dumps(deferred.trigger_kwargs, default=str)))
        trigger = import_string(deferred.classpath)(**kwargs)
        if deferred.classpath in _ANSWER_TRIGGERS:
            trigger.poke_interval = 0.01
        trigger.task_instance = SimpleNamespace(
            dag_id=self.operator.dag_id, task_id=self.operator.task_id, run_id="run", map_index=self.map_index
        )
        self.triggers.append(trigger)

        async def first() -> Any:
            return await anext(trigger.run())

        return asyncio.run(first())

    def clear(self) -> None:
        """Clear the task as Airflow's UI does (seen on 3.3.2)."""
        self.left = None
        self.max_tries = self.try_number + self.operator.retries

    @property
    def xcoms(self) -> dict[str, Any]:
        """Return the XComs of the task by key, without the attempt number (pushed before Airflow 3.2)."""
        mine = (self.operator.task_id, "flowservice_attempt")
        stored = self.supervisor.stored_xcoms.items()
        return {key: decode_xcom(value) for (task, key), value in stored if task == mine[0] and key != mine[1]}

    def _instance(self, next_method: str | None, next_kwargs: Any) -> Any:
        from airflow.sdk.api.datamodels._generated import DagRun, TIRunContext
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

        dag_run = DagRun(
            dag_id=self.operator.dag_id,
            run_id="run",
            start_date=self.began,
            end_date=None,
            state="running",
            consumed_asset_events=self.events,
            **known_fields(DagRun, self.dates),
        )
        from_server = TIRunContext(
            dag_run=dag_run,
            task_reschedule_count=self.rescheduled,
            max_tries=self.max_tries,
            should_retry=self.try_number <= self.max_tries,
            next_method=next_method,
            next_kwargs=next_kwargs,
            xcom_keys_to_clear=[] if next_method else self.xcom_keys,
        )
        return RuntimeTaskInstance.model_construct(
            id=self.id,
            task_id=self.operator.task_id,
            dag_id=self.operator.dag_id,
            run_id="run",
            try_number=self.try_number,
            map_index=self.map_index,
            dag_version_id=uuid4(),
            hostname="here",
            task=self.operator,
            start_date=datetime.now(timezone.utc),
            max_tries=self.max_tries,
            _ti_context_from_server=from_server,
        )


@dataclass
class Worker:
    """Factory of tasks."""

    supervisor: Supervisor
    log: Any

    def task(
        self,
        operator: Callable[..., Any],
        *,
        schedule: Any = "@daily",
        date: datetime | None = datetime(2026, 1, 10, tzinfo=timezone.utc),
        interval: tuple[datetime, datetime] | None = None,
        run_type: str = "scheduled",
        run_after: datetime | None = None,
        conf: dict[str, Any] | None = None,
        native: bool = False,
        store: bool = True,
        deferral_timeout: bool = False,
        partition_date: datetime | None = None,
        events: Sequence[tuple[Any, ...]] = (),
        dag_settings: dict[str, Any] | None = None,
        map_index: int = -1,
        **arguments: Any,
    ) -> Task:
        """Return a task in a DAG run with a logical date.

        :param interval: the DAG run's data interval; Airflow leaves it empty for most schedules.
        :param native: the DAG renders templates as native objects.
        :param store: this Airflow keeps task state (3.3 and later).
        :param deferral_timeout: the trigger times out.
        :param events: asset events that triggered the DAG run: the asset's name, the event's extra, and optionally the
            partition key.
        :param dag_settings: further arguments of the DAG.
        :param map_index: for an operator that returns a mapped task, the index of the task instance.
        """
        if VERSION < (3, 3) and getattr(operator, "__name__", "") in _CREATING:
            # Before 3.3, each retry compares the dataflow's flow runs for this time, by default three minutes.
            arguments.setdefault("uncertain_patience", 1.0)
        from airflow.sdk import DAG

        dag = DAG(
            "dag",
            schedule=schedule,
            start_date=datetime(2020, 1, 1, tzinfo=timezone.utc),
            render_template_as_native_obj=native,
            **(dag_settings or {}),
        )
        arguments.setdefault("task_id", "task")
        made = operator(dag=dag, **arguments)
        start, end = interval or (date, date)
        dates = {
            "logical_date": date,
            "data_interval_start": start,
            "data_interval_end": end,
            "run_after": run_after or date or datetime(2026, 1, 10, tzinfo=timezone.utc),
            "run_type": run_type,
            "conf": conf,
            "partition_date": partition_date,
            "partition_key": None if partition_date is None else partition_date.isoformat(),
        }
        return Task(
            self,
            made,
            dates,
            store=store,
            deferral_timeout=deferral_timeout,
            events=[_event(*event) for event in events],
            map_index=map_index,
        )


def _event(asset: str, extra: dict[str, Any], partition_key: str | None = None) -> Any:
    from airflow.sdk.api.datamodels._generated import AssetEventDagRunReference

    return AssetEventDagRunReference.model_validate(
        {
            "asset": {"name": asset, "uri": asset, "extra": {}},
            "extra": extra,
            "source_task_id": "ingest",
            "source_dag_id": "upstream",
            "source_run_id": "upstream_run",
            "source_map_index": -1,
            "source_aliases": [],
            "timestamp": "2026-01-10T00:00:00Z",
            # Airflow before 3.3 refuses the field.
            **({} if partition_key is None else {"partition_key": partition_key}),
        }
    )


@pytest.fixture(autouse=True)
def _minutes_are_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the wait for an unknown flow run, so that a test fails after seconds."""
    monkeypatch.setattr("airflow_flowservice.runs.watch.NOT_YET_READABLE", 10.0)
    monkeypatch.setattr("airflow_flowservice.runs.watch.STATUS_PATIENCE", 0.5)


@pytest.fixture(scope="session")
def clock() -> Clock:
    """Return the emulator's clock."""
    return Clock()


@pytest.fixture(scope="session")
def running(clock: Clock) -> Iterator[Emulator]:
    with running_emulator(Settings(queue_s=1.0, run_s=2.0), clock=clock) as emulator:
        yield emulator


@pytest.fixture
def emulator(running: Emulator, clock: Clock) -> Emulator:
    """Return Flow Service and IMS, reset for each test; their clock is twenty times as fast."""
    clock.set(at=time.time(), speed=SPEED)
    running.reset()
    return running


@pytest.fixture
def each_read_takes(emulator: Emulator, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Return a function that stops the clock, and advances it at each read of a flow run by some seconds.

    The number of polls then does not depend on the speed of the machine.
    """
    from airflow_flowservice.api.client import FlowServiceClient

    get_run = FlowServiceClient.get_run

    def start(seconds: float) -> None:
        def read(*args: Any, **kwargs: Any) -> Any:
            clock.advance(seconds)
            return get_run(*args, **kwargs)

        clock.stop()
        monkeypatch.setattr(FlowServiceClient, "get_run", read)

    return start


@pytest.fixture
def is_in_loop(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Return a list that records for each request whether the thread of an event loop sends it.

    A request in that thread blocks all triggers. Times do not show this on a machine that pauses.
    """
    from airflow_flowservice.api.http_session import HttpSession

    recorded: list[bool] = []
    attempt = HttpSession._attempt

    def record(*args: Any, **kwargs: Any) -> Any:
        recorded.append(asyncio._get_running_loop() is not None)
        return attempt(*args, **kwargs)

    monkeypatch.setattr(HttpSession, "_attempt", record)
    return recorded


@pytest.fixture
def runs_of(emulator: Emulator) -> Callable[..., list[dict[str, Any]]]:
    """Return a function that lists the flow runs of a dataflow from the ledger."""

    def runs(flow_id: str = FLOW) -> list[dict[str, Any]]:
        return list(emulator.ledger()["flows"][flow_id]["runs"])

    return runs


@pytest.fixture
def wait_for_end(runs_of: Callable[..., list[dict[str, Any]]]) -> Callable[[str], None]:
    """Return a function that waits until a flow run has ended."""

    def wait(flow_run_id: str) -> None:
        until = time.monotonic() + 30
        while not any(run["id"] == flow_run_id and run["status"] in ("success", "failed") for run in runs_of()):
            assert time.monotonic() < until, runs_of()
            time.sleep(0.02)

    return wait


@pytest.fixture
def connection(emulator: Emulator) -> dict[str, Any]:
    """Return the values of `flowservice_default`; a test may change them."""
    return connection_to(emulator)


def connection_to(emulator: Emulator) -> dict[str, Any]:
    return {
        "conn_type": "flowservice",
        "host": emulator.url,
        "login": "emulator-client",
        "password": "emulator-secret",
        "extra": {"org_id": "EMULATOR@AdobeOrg", "ims_url": emulator.url, "max_attempts": 2},
    }


@pytest.fixture
def supervisor(connection: dict[str, Any]) -> Iterator[Supervisor]:
    """Return the supervisor of workers and triggerers."""
    from airflow.sdk.execution_time.supervisor import set_supervisor_comms

    made = Supervisor()
    made.connections["flowservice_default"] = connection
    with set_supervisor_comms(made):
        yield made


@pytest.fixture
def worker(supervisor: Supervisor) -> Worker:
    """Return the factory of tasks."""
    import structlog

    return Worker(supervisor, structlog.get_logger("task"))


@pytest.fixture
def create_run(worker: Worker) -> Callable[..., str]:
    """Return a function that creates a flow run of the table-based dataflow in a separate task, and returns its id."""
    from airflow_flowservice.operators import OnDemandFlowRunOperator

    def create(**arguments: Any) -> str:
        arguments = {"flow_id": FLOW, "delta_column": "updated_at", "task_id": "create", **arguments}
        task = worker.task(OnDemandFlowRunOperator, **arguments)
        assert task.run().state == "success"
        return str(task.xcoms["return_value"])

    return create


@pytest.fixture
def log(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Return a function that returns the lines of the log: of the modules, and of Airflow's task runner."""
    caplog.set_level(logging.INFO)
    written: list[str] = []

    def read() -> list[str]:
        written.extend(re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines())
        modules = [f"[{record.levelname.lower()}] {record.getMessage()} [{record.name}]" for record in caplog.records]
        return modules + [line for line in written if not any(message in line for message in caplog.messages)]

    return read
