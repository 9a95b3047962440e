# SPDX-License-Identifier: Apache-2.0
"""Wait for a run: results of polls, log lines, and when waiting ends."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from airflow_flowservice.api.models import FlowRun, FlowRunStatus
from airflow_flowservice.exceptions import (
    AccessDeniedError,
    ApiError,
    AuthenticationError,
    FlowRunTimeoutError,
    FlowRunVanishedError,
    NoAnswerError,
    RateLimitedError,
    RunNotFoundError,
    ServerError,
    UnreadableAnswerError,
)
from airflow_flowservice.runs.watch import (
    ERROR_BUDGET,
    NOT_YET_READABLE,
    STATUS_PATIENCE,
    UNKNOWN_PATIENCE,
    RunWatch,
    wait_for_end,
)

URL = "https://adobe.test/run"
Read = Callable[..., FlowRun]


def run(word: str) -> FlowRun:
    status = FlowRunStatus.parse(word) if word else FlowRunStatus.SCHEDULED
    return FlowRun(id="run", flow_id="flow", status=status, status_word=word)


def responses(*given: str | ApiError) -> Read:
    """Return a reader that gives these results in order: a status or an error; it repeats the last."""
    rest = list(given)

    def read(flow_run_id: str, *, within_s: float | None) -> FlowRun:
        assert flow_run_id == "run"
        answer = rest.pop(0) if len(rest) > 1 else rest[0]
        if isinstance(answer, ApiError):
            raise answer
        return run(answer)

    return read


def unknown() -> RunNotFoundError:
    return RunNotFoundError("unknown", http_status=404, code="404-x", request_id="request")


@pytest.fixture
def watch_of(clock: Any) -> Callable[..., RunWatch]:
    """Return a function that creates watches with the fake clock."""

    def make(**fields: Any) -> RunWatch:
        times = {"monotonic": clock.monotonic, "wall": lambda: clock.now().timestamp()}
        return RunWatch(**{"flow_run_id": "run", "url": URL, **times, **fields})

    return make


@pytest.fixture
def watch(watch_of: Callable[..., RunWatch]) -> RunWatch:
    return watch_of()


def logged(caplog: pytest.LogCaptureFixture, *, level: int = logging.INFO) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= level]


# --- valid responses ---


@pytest.mark.parametrize("word", ["success", "partialSuccess", "failed", "completed"])
def test_poll_returns_a_run_that_has_ended(watch: RunWatch, word: str) -> None:
    """The caller decides what a success or a failure means."""
    ended = watch.poll(responses(word))
    assert ended is not None
    assert word == ended.status_word


@pytest.mark.parametrize("word", ["", "scheduled", "queued", "inProgress", "Hibernating"])
def test_poll_returns_none_until_the_run_has_ended(watch: RunWatch, word: str) -> None:
    """An unknown status is not an end."""
    assert watch.poll(responses(word)) is None


def test_last_run_is_kept(watch: RunWatch) -> None:
    """Callers show it."""
    watch.poll(responses("inProgress"))
    assert watch.last is not None
    assert watch.last.status_word == "inProgress"


def test_each_status_change_is_logged_once(watch: RunWatch, clock: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Repeated polls with the same status log nothing."""
    caplog.set_level(logging.INFO)
    words = ["", "", "inProgress", "inProgress", "inProgress", "success"]
    wait_for_end(watch, responses(*words), sleep=clock.sleep)
    assert ["Flow run run is waiting", "Flow run run is inProgress", "Flow run run is success"] == logged(caplog)


def test_unknown_status_is_logged_once_and_waiting_continues(
    watch: RunWatch, clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Adobe may add a status; waiting ends only with a known final one."""
    ended = wait_for_end(watch, responses("Hibernating", "Hibernating", "Hibernating", "success"), sleep=clock.sleep)
    assert ended.status is FlowRunStatus.SUCCESS
    assert ["Flow run run has the unknown status 'Hibernating'; continuing to wait"] == logged(
        caplog, level=logging.WARNING
    )


def unclear(clock: Any) -> FlowRun:
    status = FlowRunStatus.ENDED_UNCLEAR
    return FlowRun(id="run", status=status, status_word="ended without a status", completed_at=clock.now())


def test_a_run_without_a_status_is_returned_after_minutes(watch: RunWatch, clock: Any) -> None:
    """The status may become visible after the completion time; the wait does not last until the time limit."""
    ended, begin = unclear(clock), clock.monotonic()
    assert wait_for_end(watch, lambda flow_run_id, **limit: ended, sleep=clock.sleep) is ended
    assert STATUS_PATIENCE <= clock.monotonic() - begin <= 2 * STATUS_PATIENCE


def test_a_status_that_appears_late_is_used(watch: RunWatch, clock: Any) -> None:
    found = [unclear(clock), unclear(clock), run("success")]
    assert wait_for_end(watch, lambda flow_run_id, **limit: found.pop(0), sleep=clock.sleep).status.succeeded


def test_a_new_process_counts_from_the_completion_time(watch: RunWatch, clock: Any) -> None:
    """A rescheduled sensor has a new process for each poll."""
    ended = unclear(clock)
    clock.sleep(STATUS_PATIENCE + 1)
    assert watch.poll(lambda flow_run_id, **limit: ended) is ended


def test_a_run_that_ended_with_an_unknown_status_is_unclear_in_the_end(watch: RunWatch, clock: Any) -> None:
    """Flow Service may have a status for a cancelled run that no document names; without a limit, nothing ends it."""
    cancelled, begin = replace(run("cancelled"), completed_at=clock.now()), clock.monotonic()
    ended = wait_for_end(watch, lambda flow_run_id, **limit: cancelled, sleep=clock.sleep)
    assert ("ended_unclear", "cancelled") == (ended.status.value, ended.status_word)
    assert UNKNOWN_PATIENCE <= clock.monotonic() - begin <= UNKNOWN_PATIENCE + 60
    assert watch.poll(lambda flow_run_id, **limit: cancelled).status is FlowRunStatus.ENDED_UNCLEAR


def test_an_unknown_status_without_a_completion_time_is_waited_for(watch: RunWatch, clock: Any) -> None:
    read = responses("melted")
    for _ in range(5):
        assert watch.poll(read) is None
        clock.sleep(UNKNOWN_PATIENCE)


# --- 404 ---


def test_a_run_that_is_not_readable_yet_is_waited_for(watch: RunWatch, clock: Any) -> None:
    """It can take minutes until a new run can be read."""
    ended = wait_for_end(watch, responses(unknown(), unknown(), unknown(), "success"), sleep=clock.sleep)
    assert ended.status is FlowRunStatus.SUCCESS


def test_not_readable_yet_is_logged_once(watch: RunWatch, clock: Any, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged as a status is."""
    wait_for_end(watch, responses(unknown(), unknown(), unknown(), "success"), sleep=clock.sleep)
    assert ["Flow run run cannot be read yet"] == [
        message.split("; ")[0] for message in logged(caplog, level=logging.WARNING)
    ]


def test_run_that_is_never_readable_is_an_error_after_five_minutes(watch: RunWatch, clock: Any) -> None:
    """The error is the 404 itself, with run and page."""
    with pytest.raises(RunNotFoundError) as caught:
        wait_for_end(watch, responses(unknown()), sleep=clock.sleep)

    error = caught.value
    assert ("run", URL, 404, "404-x") == (error.flow_run_id, error.url, error.http_status, error.code)
    assert NOT_YET_READABLE <= clock.passed < NOT_YET_READABLE + 34


@pytest.mark.parametrize(("seconds", "raises"), [(299.0, False), (300.0, True)])
def test_five_minutes_are_exact(watch: RunWatch, clock: Any, seconds: float, raises: bool) -> None:
    clock.sleep(seconds)
    if raises:
        with pytest.raises(RunNotFoundError):
            watch.poll(responses(unknown()))
    else:
        assert watch.poll(responses(unknown())) is None


def test_404_after_a_valid_response_means_that_the_run_has_vanished(watch: RunWatch) -> None:
    """Waiting ends, and the error has everything that was known."""
    watch.poll(responses("inProgress"))

    with pytest.raises(FlowRunVanishedError) as caught:
        watch.poll(responses(unknown()))

    error = caught.value
    assert "was inProgress" in error.message
    assert ("flow", "run", URL) == (error.flow_id, error.flow_run_id, error.url)
    assert (404, "404-x", "request") == (error.http_status, error.code, error.request_id)
    assert "mark the task as success" in str(error.remedy)
    assert isinstance(error.__cause__, RunNotFoundError)


# --- other errors ---


@pytest.mark.parametrize(
    "error",
    [ServerError("503"), NoAnswerError("reset"), RateLimitedError("429"), UnreadableAnswerError("html")],
    ids=lambda error: type(error).__name__,
)
def test_temporary_errors_do_not_end_waiting(watch: RunWatch, clock: Any, error: ApiError) -> None:
    """The run continues at Adobe during the error."""
    ended = wait_for_end(watch, responses("inProgress", error, error, error, "success"), sleep=clock.sleep)
    assert ended.status is FlowRunStatus.SUCCESS


def test_repeated_error_is_logged_once(watch: RunWatch, clock: Any, caplog: pytest.LogCaptureFixture) -> None:
    """After it, the status is logged again."""
    caplog.set_level(logging.INFO)
    wait_for_end(watch, responses("inProgress", *[ServerError("503")] * 3, "inProgress", "success"), sleep=clock.sleep)
    heads = [message.split("; ")[0] for message in logged(caplog)]
    assert [
        "Flow run run is inProgress",
        "Flow run run could not be read",
        "Flow run run is inProgress",
        "Flow run run is success",
    ] == heads


def test_permanent_error_ends_waiting_after_the_budget(watch: RunWatch, clock: Any) -> None:
    """The error has run and page, after half an hour without a valid response."""
    with pytest.raises(ServerError) as caught:
        wait_for_end(watch, responses(ServerError("503")), sleep=clock.sleep)
    assert ("run", URL) == (caught.value.flow_run_id, caught.value.url)
    assert ERROR_BUDGET <= clock.passed < ERROR_BUDGET + 34


def test_budget_counts_from_the_last_valid_response(watch_of: Callable[..., RunWatch], clock: Any) -> None:
    """Alternating errors and valid responses never end the wait."""
    watch = watch_of(error_budget=100)
    for _ in range(20):
        clock.sleep(60)
        assert watch.poll(responses(ServerError("503"))) is None
        assert watch.poll(responses("inProgress")) is None


def test_budget_can_be_set(watch_of: Callable[..., RunWatch], clock: Any) -> None:
    """The error is raised exactly after the given seconds."""
    watch = watch_of(error_budget=100)
    watch.poll(responses("inProgress"))
    clock.sleep(99)
    assert watch.poll(responses(ServerError("503"))) is None
    clock.sleep(1)
    with pytest.raises(ServerError):
        watch.poll(responses(ServerError("503")))


@pytest.mark.parametrize("kind", [AccessDeniedError, AuthenticationError])
def test_permanent_error_is_raised_immediately(watch: RunWatch, kind: type[ApiError]) -> None:
    """If there was no valid response before, the connection is wrong."""
    with pytest.raises(kind) as caught:
        watch.poll(responses(kind("no")))
    assert ("run", URL) == (caught.value.flow_run_id, caught.value.url)


@pytest.mark.parametrize("kind", [AccessDeniedError, AuthenticationError])
def test_credential_errors_after_a_valid_response_use_the_budget(
    watch: RunWatch, clock: Any, kind: type[ApiError]
) -> None:
    """A token can be renewed and a permission restored while the run continues."""
    watch.poll(responses("inProgress"))
    assert None is watch.poll(responses(kind("no")))
    clock.sleep(ERROR_BUDGET)
    with pytest.raises(kind):
        watch.poll(responses(kind("no")))


# --- the time limit ---


def test_timeout_error_has_the_last_status(watch_of: Callable[..., RunWatch], clock: Any) -> None:
    """It also has run and page, and a remedy."""
    with pytest.raises(FlowRunTimeoutError) as caught:
        wait_for_end(watch_of(timeout=600), responses("inProgress"), sleep=clock.sleep)

    error = caught.value
    assert "600 seconds" in error.message
    assert "last status is inProgress" in error.message
    assert ("flow", "run", URL, True) == (error.flow_id, error.flow_run_id, error.url, error.retryable)
    assert "waits for the same run" in str(error.remedy)


@pytest.mark.parametrize("timeout", [10.0, 600.0, 100_000.0])
def test_sleeping_never_exceeds_the_time_limit(watch_of: Callable[..., RunWatch], clock: Any, timeout: float) -> None:
    """The last poll is at the limit, however long the pauses are."""
    watch = watch_of(timeout=timeout, poll_interval=86_400)
    began = clock.monotonic()
    with pytest.raises(FlowRunTimeoutError):
        wait_for_end(watch, responses("inProgress"), sleep=clock.sleep)
    assert timeout == pytest.approx(clock.monotonic() - began)


def test_stored_state_has_the_runs_page(watch: RunWatch, watch_of: Callable[..., RunWatch]) -> None:
    """A process that never reached Flow Service can show the page."""
    following = watch_of(url=None)
    following.restore(through_json(watch.to_json()))
    assert URL == following.url


def test_poll_after_limit_raises_nothing(watch: RunWatch, caplog: pytest.LogCaptureFixture) -> None:
    """The time limit ends the wait; the error is logged."""
    assert watch.poll_after_limit(responses(AccessDeniedError("no such permission"))) is None
    assert any("no such permission" in line for line in caplog.messages)


def test_poll_after_limit_returns_a_run_that_has_ended(watch: RunWatch) -> None:
    """A run that ended in time is not a timeout."""
    run = watch.poll_after_limit(responses("success"))
    assert run is not None
    assert run.status.succeeded


def test_timeout_applies_while_nothing_can_be_read(watch_of: Callable[..., RunWatch], clock: Any) -> None:
    """The last status is then not known."""
    with pytest.raises(FlowRunTimeoutError) as caught:
        wait_for_end(watch_of(timeout=60), responses(ServerError("503")), sleep=clock.sleep)
    assert "last status is not known" in caught.value.message
    assert (None, "run", URL) == (caught.value.flow_id, caught.value.flow_run_id, caught.value.url)


def test_a_run_that_ends_at_the_time_limit_has_ended(watch_of: Callable[..., RunWatch], clock: Any) -> None:
    """A response that shows the end is used, also after the limit."""
    watch = watch_of(timeout=60)
    clock.sleep(61)
    assert watch.poll(responses("success")) is not None


def test_without_a_time_limit_waiting_never_ends(watch: RunWatch, clock: Any) -> None:
    """Some runs take days."""
    watch.poll(responses("inProgress"))
    clock.sleep(10 * 86_400)
    assert watch.poll(responses("inProgress")) is None


# --- delays ---


@pytest.mark.parametrize(("age", "expected"), [(0, 1), (3, 1), (20, 5), (60, 15), (120, 30), (86_400, 30)])
def test_first_polls_are_frequent(watch: RunWatch, clock: Any, age: float, expected: float) -> None:
    """The delay is a quarter of the age, at least a second, at most the interval, with 10 % jitter."""
    clock.passed = float(age)
    delays = [watch.delay for _ in range(200)]
    assert expected * 0.9 <= min(delays)
    assert max(delays) <= expected * 1.1


def test_polls_of_many_runs_are_spread(watch: RunWatch) -> None:
    """Runs that were created together are not always read together."""
    assert len({watch.delay for _ in range(20)}) > 1


def test_interval_below_a_second_is_used(watch_of: Callable[..., RunWatch]) -> None:
    """Tests and demos need it."""
    assert watch_of(poll_interval=0.2).delay <= 0.22


def test_waiting_sleeps_between_polls(watch: RunWatch) -> None:
    """There is one pause after each poll except the last."""
    slept: list[float] = []
    wait_for_end(watch, responses("inProgress", "inProgress", "success"), sleep=slept.append)
    assert len(slept) == 2


# --- one poll per process ---


def through_json(value: Any) -> Any:
    return json.loads(json.dumps(value))


def test_stored_state_is_json_and_is_restored(watch: RunWatch, watch_of: Callable[..., RunWatch]) -> None:
    """A rescheduled sensor continues as if it were one process."""
    watch.poll(responses("inProgress"))
    following = watch_of()
    following.restore(through_json(watch.to_json()))
    assert watch.to_json() == following.to_json()


def test_restored_status_is_not_logged_again(
    watch: RunWatch, watch_of: Callable[..., RunWatch], caplog: pytest.LogCaptureFixture
) -> None:
    """Each status change is logged once, over all processes."""
    caplog.set_level(logging.INFO)
    watch.poll(responses("inProgress"))
    following = watch_of()
    following.restore(through_json(watch.to_json()))
    following.poll(responses("inProgress"))
    assert ["Flow run run is inProgress"] == logged(caplog)


def test_a_run_that_an_earlier_process_has_seen_can_vanish(watch: RunWatch, watch_of: Callable[..., RunWatch]) -> None:
    """The error has the status that the earlier process logged."""
    watch.poll(responses("inProgress"))
    following = watch_of()
    following.restore(through_json(watch.to_json()))
    with pytest.raises(FlowRunVanishedError, match="was inProgress"):
        following.poll(responses(unknown()))


def test_error_budget_continues_over_processes(watch: RunWatch, watch_of: Callable[..., RunWatch], clock: Any) -> None:
    """Otherwise a rescheduled sensor would never fail."""
    watch.poll(responses("inProgress"))
    for _ in range(2):
        clock.sleep(ERROR_BUDGET / 2)
        carried = through_json(watch.to_json())
        watch = watch_of()
        watch.restore(carried)
    with pytest.raises(ServerError):
        watch.poll(responses(ServerError("503")))


@pytest.mark.parametrize(
    "value",
    [
        None,
        "text",
        [],
        {},
        {"id": "another", "seen": True, "said": "inProgress", "good": 0.0},
        {"id": "run"},
        {"id": "run", "seen": True, "said": "inProgress", "good": None},
    ],
    ids=repr,
)
def test_unreadable_state_is_ignored(watch: RunWatch, value: Any) -> None:
    """The stored state may belong to another run or another version."""
    before = watch.to_json()
    watch.restore(value)
    assert before == watch.to_json()


def test_a_clock_that_went_back_does_not_lengthen_the_budget(watch: RunWatch, clock: Any) -> None:
    """A valid response in the future counts as one of now."""
    watch.restore({"id": "run", "seen": True, "said": None, "good": clock.now().timestamp() + 3600})
    clock.sleep(ERROR_BUDGET)
    with pytest.raises(ServerError):
        watch.poll(responses(ServerError("503")))


# --- outages and upgrades ---


def test_outage_is_logged_once(watch: RunWatch, caplog: pytest.LogCaptureFixture) -> None:
    """Each failed response has another x-request-id; the log has one line for all, and one after the outage."""
    caplog.set_level(logging.INFO, logger="airflow_flowservice.runs.watch")
    outage = [ServerError("500", request_id=f"x-{number}") for number in range(5)]
    read = responses("inProgress", *outage, "inProgress")
    for _ in range(7):
        watch.poll(read)
    lines = [line.split(";")[0] for line in logged(caplog)]
    assert ["Flow run run is inProgress", "Flow run run could not be read", "Flow run run is inProgress"] == lines


def test_error_is_not_a_status(watch_of: Callable[..., RunWatch], clock: Any) -> None:
    """A run that could never be read has no last status."""
    watch = watch_of(timeout=90.0)
    watch.poll(responses(ServerError("500")))
    clock.sleep(90)
    with pytest.raises(FlowRunTimeoutError, match="its last status is not known"):
        watch.poll(responses(ServerError("500")))


@pytest.mark.parametrize("rest", [{}, {"seen": True}, {"seen": True, "said": "inProgress", "good": None}], ids=repr)
def test_incomplete_state_is_ignored(watch: RunWatch, rest: dict[str, Any]) -> None:
    """A state that lacks a key changes nothing."""
    watch.restore({"id": "run", **rest})
    assert watch.poll(responses(unknown())) is None


# --- the time of a read ---


@pytest.fixture
def limits_of() -> Callable[[RunWatch], list[float | None]]:
    """Return a function that polls a watch once, and returns the limits of its reads so far."""
    found: list[float | None] = []

    def poll(watch: RunWatch) -> list[float | None]:
        def read(flow_run_id: str, *, within_s: float | None) -> FlowRun:
            found.append(within_s)
            return run("inProgress")

        watch.poll(read)
        return found

    return poll


def test_read_without_a_time_limit(watch: RunWatch, limits_of: Callable[[RunWatch], list[float | None]]) -> None:
    """The client's limits apply."""
    assert [None] == limits_of(watch)


@pytest.mark.parametrize("name", ["timeout", "caller_limit"])
def test_read_has_the_remaining_time(
    watch_of: Callable[..., RunWatch], clock: Any, limits_of: Callable[[RunWatch], list[float | None]], name: str
) -> None:
    """A read never takes longer than the rest of a time limit, but a second for the last read."""
    watch = watch_of(**{name: 60.0})
    limits_of(watch)
    clock.sleep(40)
    limits_of(watch)
    clock.sleep(19.9)
    assert [60.0, 20.0, 1.0] == [round(each or 0.0, 3) for each in limits_of(watch)]


def test_shorter_time_limit_applies(
    watch_of: Callable[..., RunWatch], limits_of: Callable[[RunWatch], list[float | None]]
) -> None:
    """If there are two time limits, the read has the shorter one."""
    assert [30.0] == limits_of(watch_of(timeout=60.0, caller_limit=30.0))


def test_read_after_a_limit_is_short(watch: RunWatch) -> None:
    """The last read of a new process has ten seconds for its connection and token."""
    found: list[float | None] = []

    def read(flow_run_id: str, *, within_s: float | None) -> FlowRun:
        found.append(within_s)
        return run("success")

    assert watch.poll_after_limit(read) is not None
    assert [10.0] == found
