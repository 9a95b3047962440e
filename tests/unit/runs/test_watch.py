"""Waiting for a run: what a look means, what is said, and when waiting ends."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
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
from airflow_flowservice.runs.watch import ERROR_BUDGET, NOT_YET_READABLE, RunWatch, wait_for_end

URL = "https://adobe.test/run"
Read = Callable[[str], FlowRun]


def run(word: str) -> FlowRun:
    status = FlowRunStatus.parse(word) if word else FlowRunStatus.SCHEDULED
    return FlowRun(id="run", flow_id="flow", status=status, status_word=word)


def answers(*given: str | ApiError) -> Read:
    """Reads that answer in turn: a status word or an error; the last one for ever."""
    rest = list(given)

    def read(flow_run_id: str) -> FlowRun:
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
    """Makes watches by the fake clock."""

    def make(**fields: Any) -> RunWatch:
        times = {"monotonic": clock.monotonic, "wall": lambda: clock.now().timestamp()}
        return RunWatch(**{"flow_run_id": "run", "url": URL, **times, **fields})

    return make


@pytest.fixture
def watch(watch_of: Callable[..., RunWatch]) -> RunWatch:
    return watch_of()


def said(caplog: pytest.LogCaptureFixture, *, level: int = logging.INFO) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= level]


# --- a good answer ---


@pytest.mark.parametrize("word", ["success", "partialSuccess", "failed", "completed"])
def test_a_look_at_a_run_that_has_ended_gives_the_run(watch: RunWatch, word: str) -> None:
    """Whether it succeeded or failed is the caller's business."""
    ended = watch.look(answers(word))
    assert ended is not None
    assert word == ended.status_word


@pytest.mark.parametrize("word", ["", "scheduled", "queued", "inProgress", "Hibernating"])
def test_a_look_at_a_run_that_goes_on_gives_none(watch: RunWatch, word: str) -> None:
    """An unknown word is no end either."""
    assert watch.look(answers(word)) is None


def test_the_last_answer_is_kept(watch: RunWatch) -> None:
    """Callers show it."""
    watch.look(answers("inProgress"))
    assert watch.last is not None
    assert watch.last.status_word == "inProgress"


def test_each_change_of_the_status_is_one_line(watch: RunWatch, clock: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A log that repeats itself every thirty seconds is not read."""
    caplog.set_level(logging.INFO)
    words = ["", "", "inProgress", "inProgress", "inProgress", "success"]
    wait_for_end(watch, answers(*words), sleep=clock.sleep)
    assert ["Flow run run is waiting", "Flow run run is inProgress", "Flow run run is success"] == said(caplog)


def test_an_unknown_word_is_said_once_and_waited_on(
    watch: RunWatch, clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Adobe may invent a status; the task goes on until one that is known to be the end."""
    ended = wait_for_end(watch, answers("Hibernating", "Hibernating", "Hibernating", "success"), sleep=clock.sleep)
    assert ended.status is FlowRunStatus.SUCCESS
    assert ["Flow run run is 'Hibernating', a status nobody has heard of; waiting on"] == said(
        caplog, level=logging.WARNING
    )


# --- 404 ---


def test_a_run_that_is_not_readable_yet_is_waited_for(watch: RunWatch, clock: Any) -> None:
    """A new run may take minutes to show."""
    ended = wait_for_end(watch, answers(unknown(), unknown(), unknown(), "success"), sleep=clock.sleep)
    assert ended.status is FlowRunStatus.SUCCESS


def test_not_readable_yet_is_said_once(watch: RunWatch, clock: Any, caplog: pytest.LogCaptureFixture) -> None:
    """As a status is."""
    wait_for_end(watch, answers(unknown(), unknown(), unknown(), "success"), sleep=clock.sleep)
    assert ["Flow run run cannot be read yet"] == [
        message.split(", ")[0] for message in said(caplog, level=logging.WARNING)
    ]


def test_a_run_that_never_shows_is_an_error_after_five_minutes(watch: RunWatch, clock: Any) -> None:
    """It is the 404 itself, told where it belongs."""
    with pytest.raises(RunNotFoundError) as caught:
        wait_for_end(watch, answers(unknown()), sleep=clock.sleep)

    error = caught.value
    assert ("run", URL, 404, "404-x") == (error.flow_run_id, error.url, error.http_status, error.code)
    assert NOT_YET_READABLE <= clock.passed < NOT_YET_READABLE + 34


@pytest.mark.parametrize(("seconds", "raises"), [(299.0, False), (300.0, True)])
def test_the_five_minutes_are_exact(watch: RunWatch, clock: Any, seconds: float, raises: bool) -> None:
    """Not a second less."""
    clock.sleep(seconds)
    if raises:
        with pytest.raises(RunNotFoundError):
            watch.look(answers(unknown()))
    else:
        assert watch.look(answers(unknown())) is None


def test_a_run_that_was_there_and_is_not_any_more_has_vanished(watch: RunWatch) -> None:
    """Nobody waits for it, and the error tells all that was known."""
    watch.look(answers("inProgress"))

    with pytest.raises(FlowRunVanishedError) as caught:
        watch.look(answers(unknown()))

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
def test_an_error_that_passes_is_waited_out(watch: RunWatch, clock: Any, error: ApiError) -> None:
    """The run goes on at Adobe meanwhile."""
    ended = wait_for_end(watch, answers("inProgress", error, error, error, "success"), sleep=clock.sleep)
    assert ended.status is FlowRunStatus.SUCCESS


def test_the_same_error_is_said_once(watch: RunWatch, clock: Any, caplog: pytest.LogCaptureFixture) -> None:
    """And the status again after it."""
    caplog.set_level(logging.INFO)
    wait_for_end(watch, answers("inProgress", *[ServerError("503")] * 3, "inProgress", "success"), sleep=clock.sleep)
    heads = [message.split(", ")[0] for message in said(caplog)]
    assert [
        "Flow run run is inProgress",
        "Flow run run could not be read",
        "Flow run run is inProgress",
        "Flow run run is success",
    ] == heads


def test_an_error_that_stays_ends_waiting_when_the_budget_is_over(watch: RunWatch, clock: Any) -> None:
    """After half an hour without a good answer, with run and page."""
    with pytest.raises(ServerError) as caught:
        wait_for_end(watch, answers(ServerError("503")), sleep=clock.sleep)
    assert ("run", URL) == (caught.value.flow_run_id, caught.value.url)
    assert ERROR_BUDGET <= clock.passed < ERROR_BUDGET + 34


def test_the_budget_counts_from_the_last_good_answer(watch_of: Callable[..., RunWatch], clock: Any) -> None:
    """A service that is shaky all day is no reason to give up."""
    watch = watch_of(error_budget=100)
    for _ in range(20):
        clock.sleep(60)
        assert watch.look(answers(ServerError("503"))) is None
        assert watch.look(answers("inProgress")) is None


def test_the_budget_is_the_callers(watch_of: Callable[..., RunWatch], clock: Any) -> None:
    """A hundred seconds are a hundred seconds."""
    watch = watch_of(error_budget=100)
    watch.look(answers("inProgress"))
    clock.sleep(99)
    assert watch.look(answers(ServerError("503"))) is None
    clock.sleep(1)
    with pytest.raises(ServerError):
        watch.look(answers(ServerError("503")))


@pytest.mark.parametrize("kind", [AccessDeniedError, AuthenticationError])
def test_an_error_that_waiting_cannot_mend_is_raised_at_once(watch: RunWatch, kind: type[ApiError]) -> None:
    """Where nothing was ever answered, the connection is wrong."""
    with pytest.raises(kind) as caught:
        watch.look(answers(kind("no")))
    assert ("run", URL) == (caught.value.flow_run_id, caught.value.url)


@pytest.mark.parametrize("kind", [AccessDeniedError, AuthenticationError])
def test_what_worked_before_may_work_again(watch: RunWatch, clock: Any, kind: type[ApiError]) -> None:
    """A token is renewed, a permission given back: the run goes on meanwhile, so the budget decides."""
    watch.look(answers("inProgress"))
    assert None is watch.look(answers(kind("no")))
    clock.sleep(ERROR_BUDGET)
    with pytest.raises(kind):
        watch.look(answers(kind("no")))


# --- the time limit ---


def test_the_time_limit_ends_waiting_and_says_how_the_run_stands(watch_of: Callable[..., RunWatch], clock: Any) -> None:
    """Run, last status, page, and that the run goes on."""
    with pytest.raises(FlowRunTimeoutError) as caught:
        wait_for_end(watch_of(timeout=600), answers("inProgress"), sleep=clock.sleep)

    error = caught.value
    assert "600 seconds" in error.message
    assert "last status is inProgress" in error.message
    assert ("flow", "run", URL, True) == (error.flow_id, error.flow_run_id, error.url, error.retryable)
    assert "waits for the same run" in str(error.remedy)


@pytest.mark.parametrize("timeout", [10.0, 600.0, 100_000.0])
def test_the_time_limit_is_not_slept_over(watch_of: Callable[..., RunWatch], clock: Any, timeout: float) -> None:
    """However long the pauses are, the last look is at the limit."""
    watch = watch_of(timeout=timeout, poll_interval=86_400)
    began = clock.monotonic()
    with pytest.raises(FlowRunTimeoutError):
        wait_for_end(watch, answers("inProgress"), sleep=clock.sleep)
    assert timeout == pytest.approx(clock.monotonic() - began)


def test_what_is_remembered_has_the_runs_page(watch: RunWatch, watch_of: Callable[..., RunWatch]) -> None:
    """So that a process that never reached Flow Service can name it."""
    following = watch_of(url=None)
    following.carry_over(through_json(watch.to_carry_over()))
    assert URL == following.url


def test_a_last_look_raises_nothing(watch: RunWatch, caplog: pytest.LogCaptureFixture) -> None:
    """The time limit ends the wait, whatever the answer is; what went wrong is in the log."""
    assert watch.last_look(answers(AccessDeniedError("no such permission"))) is None
    assert any("no such permission" in line for line in caplog.messages)


def test_a_last_look_may_find_the_end(watch: RunWatch) -> None:
    """Then it was no timeout."""
    run = watch.last_look(answers("success"))
    assert run is not None
    assert run.status.succeeded


def test_the_time_limit_holds_while_nothing_can_be_read(watch_of: Callable[..., RunWatch], clock: Any) -> None:
    """The status is then not known."""
    with pytest.raises(FlowRunTimeoutError) as caught:
        wait_for_end(watch_of(timeout=60), answers(ServerError("503")), sleep=clock.sleep)
    assert "last status is not known" in caught.value.message
    assert (None, "run", URL) == (caught.value.flow_id, caught.value.flow_run_id, caught.value.url)


def test_a_run_that_ends_at_the_time_limit_has_ended(watch_of: Callable[..., RunWatch], clock: Any) -> None:
    """The answer is there; nobody throws it away."""
    watch = watch_of(timeout=60)
    clock.sleep(61)
    assert watch.look(answers("success")) is not None


def test_without_a_time_limit_waiting_goes_on(watch: RunWatch, clock: Any) -> None:
    """Some runs take days."""
    watch.look(answers("inProgress"))
    clock.sleep(10 * 86_400)
    assert watch.look(answers("inProgress")) is None


# --- when to look ---


@pytest.mark.parametrize(("age", "expected"), [(0, 1), (3, 1), (20, 5), (60, 15), (120, 30), (86_400, 30)])
def test_looks_are_frequent_while_the_run_is_young(watch: RunWatch, clock: Any, age: float, expected: float) -> None:
    """A quarter of its age, at least a second, at most the interval, give or take a tenth."""
    clock.passed = float(age)
    delays = [watch.delay for _ in range(200)]
    assert expected * 0.9 <= min(delays)
    assert max(delays) <= expected * 1.1


def test_looks_of_many_runs_spread(watch: RunWatch) -> None:
    """Runs that were created together are not read together for ever."""
    assert len({watch.delay for _ in range(20)}) > 1


def test_an_interval_below_a_second_is_obeyed(watch_of: Callable[..., RunWatch]) -> None:
    """Tests and demos want it."""
    assert watch_of(poll_interval=0.2).delay <= 0.22


def test_waiting_sleeps_between_looks(watch: RunWatch) -> None:
    """Once after each look but the last."""
    slept: list[float] = []
    wait_for_end(watch, answers("inProgress", "inProgress", "success"), sleep=slept.append)
    assert len(slept) == 2


# --- looking once, from one process to the next ---


def through_json(value: Any) -> Any:
    return json.loads(json.dumps(value))


def test_what_is_carried_over_is_json_and_comes_back(watch: RunWatch, watch_of: Callable[..., RunWatch]) -> None:
    """A sensor that is rescheduled remembers as if it had gone on."""
    watch.look(answers("inProgress"))
    following = watch_of()
    following.carry_over(through_json(watch.to_carry_over()))
    assert watch.to_carry_over() == following.to_carry_over()


def test_a_status_that_was_said_before_is_not_said_again(
    watch: RunWatch, watch_of: Callable[..., RunWatch], caplog: pytest.LogCaptureFixture
) -> None:
    """One line per change, also over processes."""
    caplog.set_level(logging.INFO)
    watch.look(answers("inProgress"))
    following = watch_of()
    following.carry_over(through_json(watch.to_carry_over()))
    following.look(answers("inProgress"))
    assert ["Flow run run is inProgress"] == said(caplog)


def test_a_run_that_an_earlier_process_has_seen_can_vanish(watch: RunWatch, watch_of: Callable[..., RunWatch]) -> None:
    """The error names the status that was said then."""
    watch.look(answers("inProgress"))
    following = watch_of()
    following.carry_over(through_json(watch.to_carry_over()))
    with pytest.raises(FlowRunVanishedError, match="was inProgress"):
        following.look(answers(unknown()))


def test_the_error_budget_goes_on_over_processes(
    watch: RunWatch, watch_of: Callable[..., RunWatch], clock: Any
) -> None:
    """Else a sensor that is rescheduled would never give up."""
    watch.look(answers("inProgress"))
    for _ in range(2):
        clock.sleep(ERROR_BUDGET / 2)
        carried = through_json(watch.to_carry_over())
        watch = watch_of()
        watch.carry_over(carried)
    with pytest.raises(ServerError):
        watch.look(answers(ServerError("503")))


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
def test_what_belongs_to_no_or_another_run_or_version_is_passed_over(watch: RunWatch, value: Any) -> None:
    """The scope may hold an earlier order's run."""
    before = watch.to_carry_over()
    watch.carry_over(value)
    assert before == watch.to_carry_over()


def test_a_clock_that_went_back_does_not_lengthen_the_budget(watch: RunWatch, clock: Any) -> None:
    """A good answer in the future counts as one of now."""
    watch.carry_over({"id": "run", "seen": True, "said": None, "good": clock.now().timestamp() + 3600})
    clock.sleep(ERROR_BUDGET)
    with pytest.raises(ServerError):
        watch.look(answers(ServerError("503")))


# --- what a long outage and an upgrade leave ---


def test_an_outage_is_said_once(watch: RunWatch, caplog: pytest.LogCaptureFixture) -> None:
    """Each failed answer has another x-request-id; the log has one line for all, and one when it is over."""
    caplog.set_level(logging.INFO, logger="airflow_flowservice.runs.watch")
    outage = [ServerError("500", request_id=f"x-{number}") for number in range(5)]
    read = answers("inProgress", *outage, "inProgress")
    for _ in range(7):
        watch.look(read)
    lines = [line.split(",")[0] for line in said(caplog)]
    assert ["Flow run run is inProgress", "Flow run run could not be read", "Flow run run is inProgress"] == lines


def test_an_error_is_not_taken_for_a_status(watch_of: Callable[..., RunWatch], clock: Any) -> None:
    """A run that could never be read has no last status."""
    watch = watch_of(timeout=90.0)
    watch.look(answers(ServerError("500")))
    clock.sleep(90)
    with pytest.raises(FlowRunTimeoutError, match="its last status is not known"):
        watch.look(answers(ServerError("500")))


@pytest.mark.parametrize("rest", [{}, {"seen": True}, {"seen": True, "said": "inProgress", "good": None}], ids=repr)
def test_what_another_version_left_is_passed_over(watch: RunWatch, rest: dict[str, Any]) -> None:
    """A memory that lacks something changes nothing."""
    watch.carry_over({"id": "run", **rest})
    assert watch.look(answers(unknown())) is None
