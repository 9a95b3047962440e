# SPDX-License-Identifier: Apache-2.0
"""Choose the dataflow of a task: by `flow_id`, or by `flow_name` in the sandbox of the connection.

A task instance keeps the id that its first attempt found. If a dataflow was renamed, a later attempt would otherwise
find another one, and create a second flow run for the window.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_flowservice._airflow import intent_variable, task_context
from airflow_flowservice.exceptions import ConfigurationError
from airflow_flowservice.plain_text import canonical_id, remedy_for_list

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from airflow_flowservice.ledger.entry import DataflowKey

log = logging.getLogger(__name__)

_STORE_KEY = "flowservice_dataflow"
_NO_VALUE = frozenset({"none", "null", "undefined", "nan"})


def require_one(flow_id: Any, flow_name: Any) -> None:
    """Raise an error if not exactly one of both arguments is given.

    :raises ConfigurationError: none or both are given.
    """
    if (flow_id is None) is (flow_name is None):
        given = "neither flow_id nor flow_name" if flow_id is None else "both flow_id and flow_name"
        raise ConfigurationError(f"{given} is given", remedy="give the dataflow's id or its name")


def earlier_flow_ids(continues: Any) -> tuple[str, ...]:
    """Return the ids of a task's `continues`, which is one id or several.

    :raises ConfigurationError: one is no id, such as a template, whose windows would not count as ingested.
    """
    if not continues:
        return ()
    from airflow_flowservice.api.validation import is_identifier

    ids = tuple(continues) if isinstance(continues, list | tuple | set) else (continues,)
    if all(isinstance(each, str) and is_identifier(each.strip()) for each in ids):
        return tuple(map(canonical_id, ids))
    raise ConfigurationError(
        f"continues is {continues!r}", remedy="give the ids of the earlier dataflows; they cannot be templates or names"
    )


def given_ids(value: Any) -> set[str]:
    """Return the ids of an argument that is one id or several, as they are given."""
    values = value if isinstance(value, list | tuple | set) else (value,)
    return {each.strip() for each in values if isinstance(each, str)}


def earlier_dataflows(
    key_of: Callable[[str], DataflowKey], *, flow_id: str, continues: Iterable[str], given: Iterable[str]
) -> tuple[DataflowKey, ...]:
    """Return the other keys in the ledger under which windows of a dataflow may be ingested.

    :param key_of: return the key of an id.
    :param continues: earlier dataflows.
    :param given: ids as the DAG has them. Earlier versions stored a UUID in upper case as it was given.
    """
    keys = {each: key_of(each) for each in (flow_id, *continues)}
    others = [replace(keys[canonical_id(each)], flow_id=each) for each in sorted(given) if canonical_id(each) in keys]
    return tuple(key for key in dict.fromkeys([*keys.values(), *others]) if key != keys[flow_id])


def chosen_flow_id(
    context: Mapping[str, Any], *, flow_id: Any, flow_name: Any, find: Callable[[str], str], is_kept: bool = True
) -> str:
    """Return the id of the task's dataflow.

    :param flow_id: rendered; ignored if there is a name.
    :param flow_name: rendered; None if the task has an id.
    :param find: return the id of the dataflow with a name.
    :param is_kept: later attempts must use the same dataflow.
    :raises ConfigurationError: the rendered value is no id, or no name.
    :raises FlowNameError: no dataflow, or several dataflows have the name.
    """
    if flow_name is None:
        return task_context.rendered_id(flow_id, name="flow_id")
    name = _rendered_name(flow_name)
    if not is_kept:
        return find(name)
    known = _known(context)
    if name in known:
        log.info("The dataflow %r is %s, as in an earlier attempt", name, known[name])
        return known[name]
    found = find(name)
    log.info("The dataflow %r is %s", name, found)
    if store := intent_variable.state_store(context):
        store.set(_STORE_KEY, {**known, name: found})
    return found


def _known(context: Mapping[str, Any]) -> dict[str, str]:
    """Return the ids that earlier attempts found, by name; also those before a clear."""
    attempt = task_context.attempt_of(context)
    store = None if attempt.try_number == 1 and attempt.is_first else intent_variable.state_store(context)
    value = store.get(_STORE_KEY) if store else None
    return {str(name): str(each) for name, each in value.items()} if isinstance(value, dict) else {}


def _rendered_name(value: Any) -> str:
    """Return the rendered name, without blanks around.

    :raises ConfigurationError: the template rendered to nothing, or to a list.
    """
    text = value.strip() if isinstance(value, str) else ""
    if text and text.lower() not in _NO_VALUE:
        return text
    remedy = f"set flow_name; if it is a template, check it{remedy_for_list(value)}"
    raise ConfigurationError(f"flow_name is {value!r}", remedy=remedy)
