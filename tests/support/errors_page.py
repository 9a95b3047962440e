"""Writes `docs/errors.md`, from what the exceptions say of themselves.

`python tests/support/errors_page.py` prints the page; `tests/unit/test_docs.py` compares it with the file.
"""

from __future__ import annotations

from collections.abc import Iterator

from airflow_flowservice.exceptions import FlowServiceError, WindowRefusedError, tree

_EXAMPLE = WindowRefusedError(
    "creating a flow run was refused: windowEndTime is before windowStartTime",
    flow_id="3abea21c-7e36-4be1-bec1-d3bad0e3e0de",
    window="2026-01-02T00:00:00Z/2026-01-01T00:00:00Z",
    http_status=400,
    code="1381",
    request_id="0a1b2c3d4e5f",
)

_PAGE = """\
# Errors and what to do

The last line of a task's log says what happened, to what, and what to do:

```text
{example}
```

It names the dataflow, window, flow run, HTTP status, Adobe's code and `x-request-id`, as far as there are any; Adobe's
support asks for the last one. Errors that a retry cannot mend (*retried*: no) end the task at once, without its
retries, and no retry policy is asked. The others use the task's `retries`. No retry sends again what may have arrived:
[What is guaranteed, and how](guarantees.md).

| error | means | retried | what to do |
| --- | --- | --- | --- |
{rows}

Several errors in one night: begin with [At three in the morning](guarantees.md#at-three-in-the-morning). Is it the
connection? `airflow flowservice check` asks one thing after the other: [The command line](command-line.md#check).

## The tree

In code of your own, such as a callback, catch a branch; fields such as `error.code`, `error.flow_run_id` and
`error.window` are attributes. All are in `airflow_flowservice.exceptions`.

```text
{drawing}
```

<!-- Written by tests/support/errors_page.py from airflow_flowservice/exceptions.py. -->
"""


def page() -> str:
    """The whole page."""
    return _PAGE.format(
        example=f"{type(_EXAMPLE).__name__}: {_EXAMPLE}", rows="\n".join(_rows()), drawing="\n".join(_drawing())
    )


def _rows() -> Iterator[str]:
    """One for each error that can be seen: the branches have no remedy of their own."""
    for cls in tree():
        if cls.default_remedy:
            yield f"| `{cls.__name__}` | {meaning(cls)} | {'yes' if cls.retryable else 'no'} | {cls.default_remedy} |"


def meaning(cls: type[FlowServiceError]) -> str:
    """The first line of the class's docstring, without its full stop."""
    return (cls.__doc__ or "").strip().splitlines()[0].rstrip(".")


def _drawing(cls: type[FlowServiceError] = FlowServiceError, *, indent: str = "") -> Iterator[str]:
    yield f"{indent}{cls.__name__}"
    known = set(tree())
    for child in cls.__subclasses__():
        if child in known:
            yield from _drawing(child, indent=indent + "    ")


if __name__ == "__main__":
    print(page(), end="")
