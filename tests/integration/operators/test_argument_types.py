# SPDX-License-Identifier: Apache-2.0
"""Arguments of tasks that are no templates, with values of other types, such as those of a file or of a variable."""

from __future__ import annotations

import pytest

from airflow_flowservice.exceptions import ConfigurationError
from airflow_flowservice.operators import OnDemandFlowRunOperator, RetriggerFlowRunOperator
from airflow_flowservice.sensors import FlowRunSensor

FLOW = "3abea21c-7e36-4be1-bec1-d3bad0e3e0de"
OPERATOR = (OnDemandFlowRunOperator, {"flow_id": FLOW})
RETRIGGER = (RetriggerFlowRunOperator, {"flow_run_id": "run-1"})
SENSOR = (FlowRunSensor, {"flow_run_id": "run-1"})


@pytest.mark.parametrize("value", ["False", "true", "{{ params.wait }}", 0, 1, []], ids=repr)
@pytest.mark.parametrize(
    ("operator", "arguments", "name"),
    [
        (*OPERATOR, "wait_for_completion"),
        (*OPERATOR, "deferrable"),
        (*OPERATOR, "check_flow"),
        (*OPERATOR, "wait_for_batch"),
        (*RETRIGGER, "wait_for_completion"),
        (*RETRIGGER, "deferrable"),
        (*SENSOR, "deferrable"),
        (*SENSOR, "start_from_trigger"),
        (*SENSOR, "wait_for_batch"),
    ],
    ids=lambda each: each if isinstance(each, str) else getattr(each, "__name__", ""),
)
def test_boolean_of_another_type_is_refused(operator, arguments, name, value):
    """The text `False` would count as true."""
    with pytest.raises(ConfigurationError) as caught:
        operator(task_id="task", **arguments, **{name: value})
    assert f"{name} is {value!r}" == caught.value.message
    assert "True or False" in caught.value.remedy


@pytest.mark.parametrize(
    "continues",
    ["{{ var.value.old }}", ["{{ old }}"], [None], 7, ["a", 7], [""], {"a": "b"}, ["Orders of 2025"]],
    ids=repr,
)
def test_continues_without_ids_is_refused(continues):
    """The windows of the earlier dataflow would not count as ingested."""
    with pytest.raises(ConfigurationError) as caught:
        OnDemandFlowRunOperator(task_id="task", flow_id=FLOW, continues=continues)
    assert f"continues is {continues!r}" == caught.value.message
    assert FLOW == caught.value.flow_id


@pytest.mark.parametrize(
    ("continues", "ids"),
    [
        ((), ()),
        (None, ()),
        ("old", ("old",)),
        (["a", " b "], ("a", "b")),
        ([FLOW.upper()], (FLOW,)),
        (("a",), ("a",)),
    ],
    ids=repr,
)
def test_continues_accepts_one_id_or_several(continues, ids):
    assert ids == OnDemandFlowRunOperator(task_id="task", flow_id=FLOW, continues=continues).continues
