# SPDX-License-Identifier: Apache-2.0
"""Links to the flow run and the dataflow, while the task runs and after it failed."""

from __future__ import annotations

import pytest

from airflow_flowservice._airflow.pages import ExperiencePages
from airflow_flowservice.links import DataflowLink
from airflow_flowservice.operators import OnDemandFlowRunOperator, RetriggerFlowRunOperator
from airflow_flowservice.sensors import FlowRunSensor

FLOW = "3abea21c-7e36-4be1-bec1-d3bad0e3e0de"
DATAFLOW = f"https://experience.adobe.com/#/@EMULATOR@AdobeOrg/sname:prod/platform/source/dataflows/{FLOW}"
HOURLY = "2edc08ac-4df5-4fe6-936f-81a19ce92f5c"
KEYS = ("flow_run_url", "dataflow_url")


@pytest.fixture
def ingest(worker):
    """Return a function that makes a task that ingests and waits."""

    def make(**arguments):
        defaults = {"flow_id": FLOW, "delta_column": "updated_at", "wait_for_completion": True, "poll_interval": 0.1}
        return worker.task(OnDemandFlowRunOperator, **{**defaults, **arguments})

    return make


def pages(task):
    """Return the addresses of both links."""
    return tuple(task.xcoms.get(key) for key in KEYS)


def test_both_exist_while_the_task_waits_in_the_triggerer(ingest, runs_of):
    """Both links exist after the worker has ended."""
    task = ingest(deferrable=True)
    task.try_number = 1
    assert "deferred" == task.step().state
    [run] = runs_of()
    assert (f"{DATAFLOW}/activity/{run['id']}", DATAFLOW) == pages(task)


def test_both_exist_while_the_task_waits_on_a_worker(ingest, runs_of, monkeypatch):
    """Both links exist during the wait."""
    seen = []
    task = ingest()

    def look(*_, **__):
        seen.append(pages(task))
        raise RuntimeError("seen enough")

    monkeypatch.setattr("airflow_flowservice.runs.watch.wait_for_end", look)
    task.run()
    [run] = runs_of()
    assert [(f"{DATAFLOW}/activity/{run['id']}", DATAFLOW)] == seen


@pytest.mark.parametrize("deferrable", [True, False])
def test_both_exist_after_the_flow_run_failed(ingest, emulator, runs_of, deferrable):
    """Both links exist after a failure."""
    emulator.plan_outcome(status="failed")
    task = ingest(deferrable=deferrable)
    assert "failed" == task.run().state
    [run] = runs_of()
    assert (f"{DATAFLOW}/activity/{run['id']}", DATAFLOW) == pages(task)


def test_the_dataflow_link_exists_without_a_run(ingest):
    """After a refusal, only the dataflow's link has an address; an empty address shows no button."""
    task = ingest(flow_id=HOURLY)
    assert "failed" == task.run().state
    assert ("", DATAFLOW.replace(FLOW, HOURLY)) == pages(task)


@pytest.mark.parametrize("way", [{"mode": "reschedule"}, {"deferrable": True}], ids=["reschedule", "deferrable"])
def test_both_exist_while_a_sensor_waits(worker, create_run, way):
    """Both links exist after the first poll."""
    run_id = create_run()
    task = worker.task(FlowRunSensor, flow_run_id=run_id, poke_interval=0.05, **{"deferrable": False, **way})
    task.try_number = 1
    assert task.step().state in ("deferred", "up_for_reschedule")
    assert (f"{DATAFLOW}/activity/{run_id}", DATAFLOW) == pages(task)


@pytest.mark.needs_airflow(3, 3, "tasks that begin in the triggerer")
def test_a_sensor_that_starts_in_the_triggerer_has_both(worker, create_run):
    """The triggerer pushes the addresses that otherwise the worker pushes."""
    run_id = create_run()
    task = worker.task(FlowRunSensor, flow_run_id=run_id, poke_interval=0.05, start_from_trigger=True)
    arguments = task.operator.start_trigger_args
    deferred = type("Deferred", (), {"classpath": arguments.trigger_cls, "trigger_kwargs": arguments.trigger_kwargs})
    assert "TaskSuccessEvent" == type(task.trigger(deferred)).__name__
    assert (f"{DATAFLOW}/activity/{run_id}", DATAFLOW) == pages(task)


def test_a_repeated_run_has_both(worker, create_run, emulator, wait_for_end, runs_of):
    """Both links are for the new flow run."""
    emulator.plan_outcome(status="failed")
    failed = create_run()
    wait_for_end(failed)
    task = worker.task(RetriggerFlowRunOperator, flow_run_id=failed)
    assert "success" == task.run().state
    assert (f"{DATAFLOW}/activity/{runs_of()[-1]['id']}", DATAFLOW) == pages(task)


def pushed(supervisor):
    """Return the number of pushes of each address."""
    keys = [msg.key for msg in supervisor.sent if type(msg).__name__ == "SetXCom"]
    return tuple(keys.count(key) for key in KEYS)


@pytest.mark.parametrize(
    "way",
    [{"wait_for_completion": False}, {"deferrable": False}, {"deferrable": True}],
    ids=["creates", "worker", "triggerer"],
)
def test_each_address_is_pushed_once(ingest, supervisor, way):
    """Airflow does not push an address at the end that the task has pushed before."""
    assert "success" == ingest(**way).run().state
    assert (1, 1) == pushed(supervisor)


def test_links_of_a_subclass_are_pushed_by_airflow(worker, supervisor, emulator):
    """Only links whose address the task has pushed are removed."""

    class Own(DataflowLink):
        name = "Own"

        @property
        def xcom_key(self):
            return "own_url"

    class WithLink(OnDemandFlowRunOperator):
        operator_extra_links = (*OnDemandFlowRunOperator.operator_extra_links, Own())

    task = worker.task(WithLink, flow_id=FLOW, delta_column="updated_at")
    assert "success" == task.run().state
    assert ((1, 1), DATAFLOW) == (pushed(supervisor), task.xcoms["own_url"])


def test_an_address_of_another_host_is_replaced_at_the_end(ingest, monkeypatch):
    """Airflow pushes an empty address if the address is no page of Experience Platform."""
    monkeypatch.setattr(ExperiencePages, "flow_run", lambda *_, **__: "https://example.com/")
    task = ingest(wait_for_completion=False)
    assert "success" == task.run().state
    assert "" == task.xcoms["flow_run_url"]
