"""The tree of errors: what each says, and that it survives processes."""

from __future__ import annotations

import inspect
import json
import pickle
import re

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
    from_dict,
    telling,
    tree,
)

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


def depth(cls: type[FlowServiceError]) -> int:
    return cls.__mro__.index(FlowServiceError)


def drawn() -> list[tuple[int, str]]:
    """Nesting and name of each line of the tree in the module's docstring."""
    assert exceptions.__doc__ is not None
    picture = exceptions.__doc__.split("```")[1].strip().splitlines()
    lines = [re.match(r"[│├└─ ]*(?=\w)", line) for line in picture]
    return [(len(m.group()) // 4, m.string[m.end() :].split()[0]) for m in lines if m]


def attributes(error: FlowServiceError) -> dict[str, object]:
    return {"type": type(error), "message": error.message, **{name: getattr(error, name) for name in FIELDS}}


class TestTree:
    def test_the_picture_shows_the_classes(self) -> None:
        """The docstring's tree has the same names, nesting and order as the classes."""
        assert drawn() == [(depth(cls), cls.__name__) for cls in CLASSES]

    def test_every_error_of_the_module_is_in_the_tree(self) -> None:
        """`tree` leaves out no class, and gives each once."""
        defined = [
            cls
            for _, cls in inspect.getmembers(exceptions, inspect.isclass)
            if issubclass(cls, Exception) and cls.__module__ == exceptions.__name__
        ]
        assert sorted(CLASSES, key=lambda cls: cls.__name__) == defined

    def test_parents_come_first(self) -> None:
        """Every class follows the one that it specialises."""
        assert all(CLASSES.index(cls.__bases__[0]) < CLASSES.index(cls) for cls in CLASSES[1:])

    def test_a_part_of_the_tree(self) -> None:
        """`tree` of a class begins there and stays below it."""
        found = list(tree(FlowRunError))
        assert (found[0], all(issubclass(cls, FlowRunError) for cls in found)) == (FlowRunError, True)

    def test_foreign_subclasses_are_left_out(self) -> None:
        """A subclass from elsewhere, such as Airflow's non-retried twins, is not part of the tree."""

        class Foreign(WindowError):
            pass

        assert Foreign not in list(tree())

    @pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
    def test_every_class_says_what_it_means(self, cls: type[FlowServiceError]) -> None:
        """Each class has a docstring of its own."""
        assert cls.__dict__.get("__doc__")

    @pytest.mark.parametrize("cls", LEAVES, ids=lambda cls: cls.__name__)
    def test_every_leaf_has_a_remedy(self, cls: type[FlowServiceError]) -> None:
        """Whoever raises a leaf need not think of what to do: the class knows."""
        assert cls("it broke").remedy


class TestMessage:
    def test_all_fields_are_told(self) -> None:
        """Message, every fact and the remedy are in the text, in that order."""
        assert str(ApiError("it broke", **FIELDS)) == (
            "it broke (flow f-1, window 2026-01-01T00:00:00Z/2026-01-02T00:00:00Z, flow run r-1, HTTP status 400, "
            "Adobe code 1382, x-request-id x-1, see https://experience.adobe.com/r-1). What to do: do this"
        )

    def test_without_fields_it_is_the_message(self) -> None:
        """Nothing is added where nothing is known."""
        assert str(FlowServiceError("it broke")) == "it broke"

    def test_a_full_stop_is_not_doubled(self) -> None:
        """A message that ends with a full stop reads as one sentence with what follows."""
        assert str(FlowServiceError("it broke.", flow_id="f-1")) == "it broke (flow f-1)"

    def test_the_class_gives_the_remedy(self) -> None:
        """Without a remedy of its own, an error has its class's."""
        assert WindowError("no window").remedy == WindowError.default_remedy

    def test_its_own_remedy_comes_first(self) -> None:
        """A remedy for this very case replaces the class's."""
        assert WindowError("no window", remedy="wait").remedy == "wait"

    def test_a_class_without_remedy_has_none(self) -> None:
        """No remedy is None, never an empty text."""
        assert FlowServiceError("it broke").remedy is None


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
class TestEveryClass:
    def test_dict_round_trip(self, cls: type[FlowServiceError]) -> None:
        """An error crosses from trigger to worker as JSON, with class and all fields."""
        error = cls("it broke", **FIELDS)
        assert attributes(from_dict(json.loads(json.dumps(error.to_dict())))) == attributes(error)

    def test_dict_round_trip_without_fields(self, cls: type[FlowServiceError]) -> None:
        """Empty fields stay empty, and the class's remedy stays the class's."""
        error = cls("it broke")
        assert attributes(from_dict(error.to_dict())) == attributes(error)

    def test_pickle_round_trip(self, cls: type[FlowServiceError]) -> None:
        """An error survives pickling, with class and all fields."""
        error = cls("it broke", **FIELDS)
        assert attributes(pickle.loads(pickle.dumps(error))) == attributes(error)


class TestDict:
    def test_it_names_class_and_message(self) -> None:
        """Fields that are empty are left out."""
        assert FlowServiceError("it broke", code="1").to_dict() == {
            "error": "FlowServiceError",
            "message": "it broke",
            "code": "1",
        }

    @pytest.mark.parametrize("name", ["ErrorOfTomorrow", "ValueError", None, ""], ids=repr)
    def test_an_unknown_class_becomes_the_base_class(self, name: str | None) -> None:
        """An event of another version is still an error of this package, with its message and fields."""
        error = from_dict({"error": name, "message": "it broke", "flow_id": "f-1", "field_of_tomorrow": 1})
        assert (type(error), error.message, error.flow_id) == (FlowServiceError, "it broke", "f-1")

    def test_an_empty_dict_is_an_error_too(self) -> None:
        """Even an event that says nothing gives an error that can be raised."""
        assert str(from_dict({})) == "unknown error"


class TestAbout:
    def test_empty_fields_are_filled(self) -> None:
        """What the raiser did not know is added."""
        assert FlowServiceError("it broke").about(flow_id="f-1").flow_id == "f-1"

    def test_known_fields_stay(self) -> None:
        """What the raiser knew is closer to the matter than what is added."""
        assert FlowServiceError("it broke", flow_id="f-1").about(flow_id="f-2").flow_id == "f-1"

    def test_the_remedy_of_the_class_stays(self) -> None:
        """A class's remedy counts as known."""
        assert WindowError("no window").about(remedy="wait").remedy == WindowError.default_remedy

    def test_it_returns_the_error_itself(self) -> None:
        """So it can be raised in one line."""
        error = ConfigurationError("it broke")
        assert error.about(flow_id="f-1") is error

    @pytest.mark.parametrize("name", ["flow", "message", "retryable"])
    def test_unknown_fields_are_refused(self, name: str) -> None:
        """A misspelt field is a bug here, and says so."""
        with pytest.raises(TypeError, match=f"FlowServiceError has no field '{name}'"):
            FlowServiceError("it broke").about(**{name: "x"})


class TestTelling:
    def test_errors_from_inside_are_told(self) -> None:
        """The same error comes out, with the fields filled."""
        error = RateLimitedError("too many")
        with pytest.raises(RateLimitedError) as caught, telling(flow_id="f-1", window="w"):
            raise error
        assert caught.value is error
        assert (error.flow_id, error.window) == ("f-1", "w")

    def test_the_innermost_knows_best(self) -> None:
        """Of nested ones, the inner fills a field first."""
        with pytest.raises(FlowRunFailedError) as caught, telling(flow_id="outer"), telling(flow_id="inner"):
            raise FlowRunFailedError("failed")
        assert caught.value.flow_id == "inner"

    def test_other_errors_pass(self) -> None:
        """An error of somebody else is left as it is."""
        error = ValueError("other")
        with pytest.raises(ValueError, match=r"^other$") as caught, telling(flow_id="f-1"):
            raise error
        assert (caught.value, vars(error)) == (error, {})

    def test_without_error_nothing_happens(self) -> None:
        """What goes well goes on."""
        with telling(flow_id="f-1"):
            result = 1
        assert result == 1


def test_the_tree_has_none_of_the_classes_made_of_it():
    """An error that was raised without retries somewhere comes back from an event as the plain class."""
    from airflow_flowservice._airflow import task_end

    with pytest.raises(FlowRunFailedError) as caught, task_end.task_errors(FlowRunFailedError):
        raise FlowRunFailedError("it failed")

    assert FlowRunFailedError is not type(caught.value)
    assert FlowRunFailedError is type(from_dict(caught.value.to_dict()))
    assert type(caught.value) not in set(tree())
