# SPDX-License-Identifier: Apache-2.0
"""Store of the values that the attempts of a task share, in an Airflow Variable: for Airflow before 3.3."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from airflow_flowservice._airflow import task_context, task_end, versions
from airflow_flowservice._airflow.variables import delete_variable, is_denied, read_variable, write_variable
from airflow_flowservice.exceptions import ConfigurationError, LedgerUnavailableError

if TYPE_CHECKING:
    from airflow_flowservice.runs.intent import Store

log = logging.getLogger(__name__)

INTENT_PREFIX = "flowservice.intent."
MISSING = "the values of an earlier attempt are missing"
_STORES = ("variable", "none")


def state_store(context: Mapping[str, Any]) -> Store | None:
    """Return the store that keeps values between the attempts of a task; None if there is none.

    From Airflow 3.3 on, this is `task_state_store`. Before, it is a Variable, unless `[flowservice] intent_store` is
    `none`.

    :raises ConfigurationError: `intent_store` has another value.
    :raises LedgerUnavailableError: a Variable of an earlier Airflow cannot be read.
    """
    store: Store | None = context.get("task_state_store")
    if store is None:
        if not is_used():
            return None
        return VariableStore(context["ti"], is_first=task_context.attempt_of(context).is_first)
    move_to(store, context["ti"])
    return store


def is_used() -> bool:
    """Return whether tasks without task state keep their values in a Variable: `[flowservice] intent_store`.

    :raises ConfigurationError: it has another value than `variable` and `none`.
    """
    default = "none" if versions.has_task_state() else "variable"
    chosen = versions.setting("intent_store") or default
    if chosen not in _STORES:
        raise ConfigurationError(
            f"intent_store in the section [flowservice] of Airflow's configuration is {chosen!r}",
            remedy=f"use one of {_STORES}",
        )
    return chosen == "variable"


class VariableStore:
    """Values of a task instance in one Airflow Variable, which is removed when the task has succeeded.

    All users who may read Variables can read the values: ids and windows, no secrets.

    A missing Variable does not prove that no attempt sent a request. An attempt that Airflow had given up may have
    succeeded and removed it; and the API server also reports a Variable as missing if it cannot read its database.
    Therefore, the first attempt creates the Variable. If a later attempt finds none, `get` returns `MISSING`, which is
    no intent, so the dataflow's flow runs are compared.

    Each method raises `LedgerUnavailableError` if Airflow does not respond or denies access.

    :param ti: task instance, on a worker or in the triggerer.
    :param is_first: no earlier attempt since the last clear can have stored a value.
    """

    def __init__(self, ti: Any, *, is_first: bool = False) -> None:
        identity = task_context.task_instance_key(ti)
        self._task = "/".join(str(identity[name]) for name in ("dag_id", "run_id", "task_id", "map_index"))
        # Ids of DAGs, runs and tasks can be longer than a key (250 characters). And Airflow masks the value of a key
        # with a word such as "token". A hash avoids both.
        self.key = INTENT_PREFIX + sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]
        self._is_first = is_first
        self._last: dict[str, Any] | None = None

    def get(self, key: str, /) -> Any:
        """Return the value; None if there is none. Return `MISSING` or another text if the values are lost."""
        values = self.read()
        if values is None and self._is_first:
            self._write({})
            return None
        self._last = values if isinstance(values, dict) else {}
        return values.get(key) if isinstance(values, dict) else values or MISSING

    def set(self, key: str, value: Any, /) -> None:
        """Write or overwrite the value, as task state does. Other values are those that this store last read."""
        self._write({**self._known(), key: value})

    def delete(self, key: str, /) -> None:
        """Remove the value; no error if there is none."""
        self._write({name: value for name, value in self._known().items() if name != key})

    def read(self) -> Any:
        """Return all values by key; None if there is no Variable; its text if it has no JSON object."""
        text = read_variable(self.key)
        if text is None:
            return None
        try:
            values = json.loads(text)
        except ValueError:
            return text
        return values if isinstance(values, dict) else text

    def remove(self) -> None:
        """Delete the Variable; no error if there is none."""
        delete_variable(self.key)

    def _known(self) -> dict[str, Any]:
        if self._last is None:
            values = self.read()
            self._last = values if isinstance(values, dict) else {}
        return self._last

    def _write(self, values: dict[str, Any]) -> None:
        description = f"Flow runs that the attempts of task {self._task} created or are about to create."
        write_variable(self.key, json.dumps(values), description=description)
        self._last = values


def remove_after_success(context: Mapping[str, Any]) -> None:
    """Let Airflow remove the Variable of this task after the task has ended as a success or was skipped.

    If the task removed it before its end, a worker that was killed in between would leave a retry without an intent.
    Airflow calls the callbacks of a task when its state is stored. A task that fails keeps its Variable.
    """
    if context.get("task_state_store") is not None or not is_used():
        return
    task_end.call_after_success(context, _remove_variable)


def move_to(store: Store, ti: Any) -> None:
    """Move the values that attempts of this task stored before the upgrade to Airflow 3.3 to its task state.

    Only later attempts read the Variable, so a first one needs no further message.
    """
    from airflow_flowservice.runs.intent_store import STORE_KEY

    is_first = ti.try_number == 1 and not task_context.has_earlier_xcoms(ti)
    if is_first or versions.setting("intent_store") == "none":
        return
    variable = VariableStore(ti)
    try:
        values = variable.read()
    except LedgerUnavailableError as error:
        if not is_denied(error):
            raise
        return  # Then the attempts before the upgrade could not write it either.
    if values is None:
        return
    # A text that cannot be parsed is also kept, so that the attempt compares the dataflow's flow runs.
    for key, value in (values if isinstance(values, dict) else {STORE_KEY: values}).items():
        if store.get(key) is None:
            store.set(key, value)
    variable.remove()
    log.info("The values of the Variable %s of an earlier Airflow are now in the task's state", variable.key)


def remove_before_success(ti: Any) -> None:
    """Remove the Variable of a task that the triggerer is about to end, where no callbacks are called.

    If the triggerer is killed in between, a worker or another triggerer reads the same flow run again.
    """
    if is_used():
        _remove(ti)


def _remove_variable(context: Mapping[str, Any]) -> None:
    _remove(context["ti"])


def _remove(ti: Any) -> None:
    store = VariableStore(ti)
    try:
        store.remove()
    except LedgerUnavailableError as error:  # The flow run has succeeded.
        log.warning("The Variable %s is no longer needed, and could not be removed: %s", store.key, error)
