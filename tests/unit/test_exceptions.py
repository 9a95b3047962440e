# SPDX-License-Identifier: Apache-2.0
"""Verify the tree of errors: messages, fields, and serialization between processes."""

from __future__ import annotations

import inspect
import json
import pickle
from datetime import datetime, timedelta, timezone

import pytest

from airflow_flowservice import exceptions
from airflow_flowservice.exceptions import (
    ApiError,
    ConfigurationError,
    FlowRunError,
    FlowRunFailedError,
    FlowServiceError,
    RateLimitedError,
    WindowError,
    error_context,
    from_dict,
    tree,
)
from airflow_flowservice.windows.window import IngestionWindow

FIELDS = {
    "flow_id": "f-1",
    "window": "2026-01-01T00:00:00Z/2026-01-02T00:00:00Z",
    "flow_run_id": "r-1",
    "http_status": 400,
    "code": "1382",
    "request_id": "x-1",
    "url": "https://experience.adobe.com/r-1",
    "remedy": "do this",
}
CLASSES = list(tree())
LEAVES = [cls for cls in CLASSES if list(tree(cls)) == [cls]]


def attributes(error: FlowServiceError) -> dict[str, object]:
    return {"type": type(error), "message": error.message, **{name: getattr(error, name) for name in FIELDS}}


class TestTree:
    def test_every_error_of_the_module_is_in_the_tree(self) -> None:
        """`tree` yields each class once."""
        defined = [
            cls
            for _, cls in inspect.getmembers(exceptions, inspect.isclass)
            if issubclass(cls, Exception) and cls.__module__ == exceptions.__name__
        ]
        assert sorted(CLASSES, key=lambda cls: cls.__name__) == defined

    def test_parents_come_first(self) -> None:
        """Every class follows its base class."""
        assert all(CLASSES.index(cls.__bases__[0]) < CLASSES.index(cls) for cls in CLASSES[1:])

    def test_subtree(self) -> None:
        """`tree` of a class starts with this class and yields only its subclasses."""
        found = list(tree(FlowRunError))
        assert (found[0], all(issubclass(cls, FlowRunError) for cls in found)) == (FlowRunError, True)

    def test_foreign_subclasses_are_skipped(self) -> None:
        """A subclass of another module, such as Airflow's non-retried classes, is not part of the tree."""

        class Foreign(WindowError):
            pass

        assert Foreign not in list(tree())

    @pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
    def test_every_class_has_a_docstring(self, cls: type[FlowServiceError]) -> None:
        """Each class has its own docstring."""
        assert cls.__dict__.get("__doc__")

    @pytest.mark.parametrize("cls", LEAVES, ids=lambda cls: cls.__name__)
    def test_every_leaf_has_a_remedy(self, cls: type[FlowServiceError]) -> None:
        """Each leaf class has a default remedy."""
        assert cls("it broke").remedy


class TestMessage:
    def test_message_has_all_fields(self) -> None:
        """The text has the message, every field and the remedy, in this order."""
        assert str(ApiError("it broke", **FIELDS)) == (
            "it broke (flow f-1, window 2026-01-01T00:00:00Z/2026-01-02T00:00:00Z, flow run r-1, HTTP status 400, "
            "Adobe code 1382, x-request-id x-1, see https://experience.adobe.com/r-1). What to do: do this"
        )

    def test_message_without_fields(self) -> None:
        assert str(FlowServiceError("it broke")) == "it broke"

    def test_full_stop_is_not_doubled(self) -> None:
        """The full stop of a message is removed before the fields."""
        assert str(FlowServiceError("it broke.", flow_id="f-1")) == "it broke (flow f-1)"

    def test_default_remedy(self) -> None:
        """Without its own remedy, an error has the remedy of its class."""
        assert WindowError("no window").remedy == WindowError.default_remedy

    def test_own_remedy_takes_precedence(self) -> None:
        """A remedy of the error replaces the remedy of its class."""
        assert WindowError("no window", remedy="wait").remedy == "wait"

    def test_class_without_remedy(self) -> None:
        """A missing remedy is None, never an empty text."""
        assert FlowServiceError("it broke").remedy is None


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
class TestEveryClass:
    def test_dict_round_trip(self, cls: type[FlowServiceError]) -> None:
        """An error is transferred from trigger to worker as JSON, with class and all fields."""
        error = cls("it broke", **FIELDS)
        assert attributes(from_dict(json.loads(json.dumps(error.to_dict())))) == attributes(error)

    def test_dict_round_trip_without_fields(self, cls: type[FlowServiceError]) -> None:
        """Empty fields stay empty, and the remedy stays that of the class."""
        error = cls("it broke")
        assert attributes(from_dict(error.to_dict())) == attributes(error)

    def test_pickle_round_trip(self, cls: type[FlowServiceError]) -> None:
        """Pickling keeps class and all fields."""
        error = cls("it broke", **FIELDS)
        assert attributes(pickle.loads(pickle.dumps(error))) == attributes(error)


class TestDict:
    def test_dict_has_class_and_message(self) -> None:
        """Empty fields are omitted."""
        assert FlowServiceError("it broke", code="1").to_dict() == {
            "error": "FlowServiceError",
            "message": "it broke",
            "code": "1",
        }

    @pytest.mark.parametrize("name", ["ErrorOfTomorrow", "ValueError", None, ""], ids=repr)
    def test_unknown_class_becomes_the_base_class(self, name: str | None) -> None:
        """An event of another version is an error of this package, with its message and fields."""
        error = from_dict({"error": name, "message": "it broke", "flow_id": "f-1", "field_of_tomorrow": 1})
        assert (type(error), error.message, error.flow_id) == (FlowServiceError, "it broke", "f-1")

    def test_empty_dict(self) -> None:
        """An event without content becomes an error that can be raised."""
        assert str(from_dict({})) == "unknown error"


class TestAbout:
    def test_empty_fields_are_filled(self) -> None:
        assert FlowServiceError("it broke").about(flow_id="f-1").flow_id == "f-1"

    def test_set_fields_are_unchanged(self) -> None:
        """Fields that are already set take precedence."""
        assert FlowServiceError("it broke", flow_id="f-1").about(flow_id="f-2").flow_id == "f-1"

    def test_default_remedy_is_unchanged(self) -> None:
        """The remedy of the class counts as set."""
        assert WindowError("no window").about(remedy="wait").remedy == WindowError.default_remedy

    def test_about_returns_the_error(self) -> None:
        """The error can be raised in one line."""
        error = ConfigurationError("it broke")
        assert error.about(flow_id="f-1") is error

    @pytest.mark.parametrize("name", ["flow", "message", "retryable"])
    def test_unknown_fields_are_refused(self, name: str) -> None:
        """A misspelled field raises TypeError."""
        with pytest.raises(TypeError, match=f"FlowServiceError has no field '{name}'"):
            FlowServiceError("it broke").about(**{name: "x"})


class TestErrorContext:
    def test_fields_of_errors_are_filled(self) -> None:
        """The same error is raised, with the fields filled."""
        error = RateLimitedError("too many")
        with pytest.raises(RateLimitedError) as caught, error_context(flow_id="f-1", window="w"):
            raise error
        assert caught.value is error
        assert (error.flow_id, error.window) == ("f-1", "w")

    def test_a_window_becomes_text(self) -> None:
        """Callers pass the window itself, and an error can still be sent as JSON."""
        begin = datetime(2026, 1, 1, tzinfo=timezone.utc)
        window = IngestionWindow(begin, begin + timedelta(days=1))
        for error in (WindowError("no", window=window), WindowError("no").about(window=window)):
            assert error.to_dict()["window"] == "2026-01-01T00:00:00Z/2026-01-02T00:00:00Z"

    def test_inner_context_takes_precedence(self) -> None:
        """The inner context fills a field first."""
        with pytest.raises(FlowRunFailedError) as caught, error_context(flow_id="outer"):  # noqa: SIM117
            with error_context(flow_id="inner"):
                raise FlowRunFailedError("failed")
        assert caught.value.flow_id == "inner"

    def test_other_errors_are_unchanged(self) -> None:
        """An error of another package is unchanged."""
        error = ValueError("other")
        with pytest.raises(ValueError, match=r"^other$") as caught, error_context(flow_id="f-1"):
            raise error
        assert (caught.value, vars(error)) == (error, {})

    def test_without_error_nothing_happens(self) -> None:
        """Without an error, the context has no effect."""
        with error_context(flow_id="f-1"):
            result = 1
        assert result == 1


def test_tree_has_no_derived_classes():
    """An error that was raised without retries is the plain class after `from_dict`."""
    from airflow_flowservice._airflow import task_end

    with pytest.raises(FlowRunFailedError) as caught, task_end.task_errors(FlowRunFailedError):
        raise FlowRunFailedError("it failed")

    assert FlowRunFailedError is not type(caught.value)
    assert FlowRunFailedError is type(from_dict(caught.value.to_dict()))
    assert type(caught.value) not in set(tree())
