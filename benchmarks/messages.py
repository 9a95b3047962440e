# SPDX-License-Identifier: Apache-2.0
"""Count the messages to Airflow and the requests to Adobe for one window, for each kind of ledger.

`python benchmarks/messages.py` runs an operator with Airflow's task runner and its trigger, as the integration tests
do: the messages to Airflow's supervisor end in memory, and the requests end in an emulator on loopback. It exits with
status 1 if a ledger costs more than four messages, or a request.

`--list` prints each message with the code that sends it: a line of this package, or the line of Airflow's task runner.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

TESTS = Path(__file__).resolve().parents[1] / "tests"
PACKAGE = Path(__file__).resolve().parents[1] / "airflow_flowservice"
LEDGERS = ("none", "airflow", "sql")
TASKS = ("creates", "waits in the triggerer", "waits on a worker")
MAX_MORE_MESSAGES = 4


@dataclass(frozen=True)
class Cost:
    """Messages and requests of one task, by kind; and each message with its sender."""

    messages: Counter[str]
    requests: Counter[str]
    senders: tuple[str, ...] = ()

    @property
    def total(self) -> tuple[int, int]:
        """Return the number of messages and of requests, without reads of flow runs, which depend on time."""
        reads = sum(count for kind, count in self.requests.items() if kind.startswith("GET /runs"))
        return self.messages.total(), self.requests.total() - reads


def main() -> None:
    """Measure each kind of task with each ledger, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="print each message with the code that sends it")
    arguments = parser.parse_args()
    folder = tempfile.TemporaryDirectory(prefix="flowservice-benchmark-")
    os.environ |= {
        "AIRFLOW_HOME": folder.name,
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{folder.name}/airflow.db",
        "AIRFLOW__OPENLINEAGE__DISABLED": "True",
        # The examples have a listener, for which a deferred task ends on a worker.
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    }
    with folder:
        costs = measure(Path(folder.name))
    for (task, ledger), cost in costs.items() if arguments.list else ():
        print(f"{task}, ledger {ledger}:", *cost.senders, sep="\n    ")
    print("| task | ledger | messages | more | requests | more | messages of the ledger's store |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    passed = True
    for (task, ledger), cost in costs.items():
        messages, requests = (a - b for a, b in zip(cost.total, costs[task, "none"].total, strict=True))
        passed &= messages <= MAX_MORE_MESSAGES and requests <= 0
        differing = cost.messages.copy()
        differing.subtract(costs[task, "none"].messages)
        kinds = ", ".join(f"{kind} {count:+}" for kind, count in sorted(differing.items()) if count)
        total = cost.total
        print(f"| {task} | {ledger} | {total[0]} | {messages:+} | {total[1]} | {requests:+} | {kinds} |")
    sys.exit(not passed)


def measure(folder: Path) -> dict[tuple[str, str], Cost]:
    """Return the cost of each kind of task with each ledger."""
    from airflow_flowservice.ledger.sql_ledger import SqlLedger

    sys.path.insert(0, str(TESTS / "support"))
    fixtures = load_fixtures()
    SqlLedger(f"sqlite:///{folder}/ledger.db").migrate()
    costs = {}
    with running_emulator(fixtures) as (emulator, clock):
        # The first task fetches the token, which all others share.
        cost_of(fixtures, emulator, task=TASKS[0], ledger="none", folder=folder, day=len(LEDGERS))
        for task in TASKS:
            for number, ledger in enumerate(LEDGERS):
                clock.set(at=time.time(), speed=fixtures.SPEED)
                emulator.reset()
                costs[task, ledger] = cost_of(fixtures, emulator, task=task, ledger=ledger, folder=folder, day=number)
    return costs


def cost_of(fixtures: ModuleType, emulator: Any, *, task: str, ledger: str, folder: Path, day: int) -> Cost:
    """Run one task for a separate window, and count."""
    import structlog
    from airflow.sdk.execution_time.supervisor import set_supervisor_comms

    from airflow_flowservice.operators import OnDemandFlowRunOperator

    os.environ["AIRFLOW__FLOWSERVICE__LEDGER"] = "none" if ledger == "none" else "airflow"
    supervisor, senders = recording_supervisor(fixtures)
    connection = fixtures.connection_to(emulator)
    if ledger == "sql":
        connection["extra"]["ledger_conn_id"] = "ledger"
        supervisor.connections["ledger"] = {"conn_type": "sqlite", "host": f"{folder}/ledger.db", "extra": {}}
    supervisor.connections["flowservice_default"] = connection
    flow_id = f"00000000-0000-4000-8000-{day:04}{TASKS.index(task):08}"
    emulator.add_flow(id=flow_id, kind="file")
    waits = task != "creates"
    made = fixtures.Worker(supervisor, structlog.get_logger("task")).task(
        OnDemandFlowRunOperator,
        flow_id=flow_id,
        wait_for_completion=waits,
        deferrable=waits and "triggerer" in task,
        poll_interval=0.2,
    )
    earlier = Counter(emulator.ledger()["requests"])
    with set_supervisor_comms(supervisor):
        ended = made.run()
    if ended.state != "success":
        raise SystemExit(f"the task with the ledger {ledger} ended as {ended.state}: {ended.error}")
    requests = Counter(emulator.ledger()["requests"]) - earlier
    return Cost(Counter(type(each).__name__ for each in supervisor.sent), requests, tuple(senders))


def recording_supervisor(fixtures: ModuleType) -> tuple[Any, list[str]]:
    """Return a supervisor, and a list to which it adds each message with its sender."""
    senders: list[str] = []

    class Recording(fixtures.Supervisor):
        def send(self, msg: Any, *args: Any, **kwargs: Any) -> Any:
            subject = getattr(msg, "key", None) or getattr(msg, "prefix", None) or getattr(msg, "conn_id", None) or ""
            senders.append(f"{type(msg).__name__:20} {subject[:60]:60} {sender(type(msg).__name__)}")
            return super().send(msg, *args, **kwargs)

    return Recording(), senders


def sender(kind: str) -> str:
    """Return the lines of this package that send a message of this kind, or the line of Airflow's task runner."""
    frames = traceback.extract_stack()
    ours = [frame for frame in frames if Path(frame.filename).is_relative_to(PACKAGE)]
    airflow = [frame for frame in frames if Path(frame.filename).name == "task_runner.py"]
    # `BaseHook.get_connection` masks the secrets of a connection that a task looks up.
    is_masking = bool(ours) and kind == "MaskSecret" and "get_connection" in ours[-1].name
    source = "airflow_flowservice" if ours and not is_masking else "Airflow"
    return f"{source}: " + " < ".join(
        f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in reversed(ours[-3:] or airflow[-1:])
    )


@contextmanager
def running_emulator(fixtures: ModuleType) -> Iterator[tuple[Any, Any]]:
    """Start an emulator with the fast clock of the integration tests."""
    from airflow_flowservice.emulator import Settings
    from airflow_flowservice.emulator import running_emulator as start

    clock = fixtures.Clock()
    with start(Settings(queue_s=1.0, run_s=2.0), clock=clock) as emulator:
        yield emulator, clock


def load_fixtures() -> ModuleType:
    """Return the module of the integration tests with the worker and the supervisor."""
    spec = importlib.util.spec_from_file_location("fixtures", TESTS / "integration" / "operators" / "conftest.py")
    if spec is None or spec.loader is None:
        raise SystemExit("this benchmark needs the tests of a checkout of the repository")
    module = importlib.util.module_from_spec(spec)
    sys.modules["fixtures"] = module
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main()
