# SPDX-License-Identifier: Apache-2.0
"""`on_uncertain="ask"`: a person decides under Airflow's Required Actions, and each window still has one flow run."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
from airflow.sdk import BaseOperator

from airflow_flowservice._airflow import versions
from airflow_flowservice.exceptions import ConfigurationError, FlowRunUncertainError
from airflow_flowservice.operators import OnDemandFlowRunOperator, RetriggerFlowRunOperator

FLOW = "3abea21c-7e36-4be1-bec1-d3bad0e3e0de"
WINDOW = "2026-01-09T00:00:00Z/2026-01-10T00:00:00Z"
PAGE = "/dags/dag/runs/run/tasks/task/required_actions"

needs_required_actions = pytest.mark.needs_airflow(3, 1, "earlier, there are no Required Actions")


@pytest.fixture(params=[True, False], ids=["awaiting input", "in the triggerer"])
def waits(request, monkeypatch):
    """Let tasks wait as on Airflow 3.3, or in the triggerer as on 3.1 and 3.2."""
    if request.param and not versions.supports_awaiting_input():
        pytest.skip("before Airflow 3.3, all tasks wait in the triggerer")
    monkeypatch.setattr(versions, "supports_awaiting_input", lambda: request.param)


@pytest.fixture
def lose_response(emulator):
    """Lose the response to the next POST, and show no windows."""
    emulator.plan_fault(kind="*", action="hide_windows")

    def lose(action="record_and_close"):
        emulator.plan_fault(nth=1, action=action)

    lose()
    return lose


@pytest.fixture
def ingest(worker, lose_response):
    """Return a function that makes a daily task whose first POST has no response."""

    def make(operator=OnDemandFlowRunOperator, **arguments):
        defaults = {"flow_id": FLOW, "delta_column": "updated_at", "retries": 2, "on_uncertain": "ask"}
        return worker.task(operator, **{**defaults, "uncertain_patience": 0.3, "poll_interval": 0.05, **arguments})

    return make


@pytest.fixture
def questions(supervisor):
    """Return a function that counts how often tasks asked."""
    return lambda: sum("CreateHITLDetailPayload" == type(message).__name__ for message in supervisor.sent)


def option_of(run):
    """Return the start of the option of a flow run."""
    return f"{run['id']}, created "


# --- the question and its answers ---


@needs_required_actions
@pytest.mark.usefixtures("waits")
def test_the_question_has_one_option_for_each_candidate(ingest, runs_of, clock):
    """The options name id, creation and status; the text has the links, the window and the page."""
    clock.stop()
    task = ingest()
    assert "asking" == task.run().state
    [run] = runs_of()
    [option, *others] = task.question["options"]
    assert option.startswith(option_of(run))
    assert option.endswith(", scheduled")
    assert (["create", "fail"], ["fail"]) == (others, task.question["defaults"])
    assert WINDOW in task.question["subject"]
    body = task.question["body"]
    assert f"/platform/source/dataflows/{FLOW}/activity/{run['id']}>" in body
    assert PAGE in body


@needs_required_actions
@pytest.mark.usefixtures("waits")
@pytest.mark.parametrize(
    "mode",
    [{}, {"wait_for_completion": True}, {"wait_for_completion": True, "deferrable": True}],
    ids=["create only", "wait on a worker", "wait in the triggerer"],
)
def test_a_chosen_candidate_is_adopted(ingest, runs_of, questions, mode):
    """The task succeeds with the flow run that the person chose, in its first try."""
    task = ingest(**mode)
    assert "asking" == task.run().state
    [run] = runs_of()
    assert "success" == task.answer(task.question["options"][0]).state
    assert (run["id"], 1, 1) == (task.xcoms["return_value"], len(runs_of()), questions())
    assert (1, WINDOW.split("/")[0]) == (task.try_number, task.xcoms["flow_run"]["window_start"])


@needs_required_actions
@pytest.mark.usefixtures("waits")
@pytest.mark.parametrize("waiting", [False, True], ids=["create only", "wait"])
def test_create_creates_another_flow_run(ingest, runs_of, waiting):
    """The task creates one further flow run, and returns it."""
    task = ingest(wait_for_completion=waiting)
    task.run()
    assert "success" == task.answer("create").state
    [_, created] = runs_of()
    assert created["id"] == task.xcoms["return_value"]
    assert WINDOW == f"{created['window_start']}/{created['window_end']}"


@needs_required_actions
@pytest.mark.usefixtures("waits")
@pytest.mark.parametrize(("user", "why"), [("jane", "jane chose fail"), (None, "no person answered in time")])
def test_fail_and_the_time_limit_fail_the_task(ingest, runs_of, user, why):
    """The task fails without a retry, and its error lists the candidates."""
    task = ingest()
    task.run()
    ended = task.answer("fail", user=user)
    [run] = runs_of()
    assert ("failed", True) == (ended.state, isinstance(ended.error, FlowRunUncertainError))
    assert why in ended.error.message
    assert f"{run['id']} created " in ended.error.message
    assert (FLOW, WINDOW) == (ended.error.flow_id, ended.error.window)
    assert '{"flowservice": {"adopt"' in ended.error.remedy


@needs_required_actions
@pytest.mark.parametrize("answer", [0, 1], ids=["adopt", "create"])
@pytest.mark.parametrize("ledger", ["airflow", "none"])
@pytest.mark.parametrize("store", [True, False], ids=["task state", "no task state"])
def test_the_answer_counts_with_every_store(ingest, runs_of, monkeypatch, answer, ledger, store):
    """The answer is used with the ledger, with the task's state, and without any stored intent."""
    monkeypatch.setenv("AIRFLOW__FLOWSERVICE__LEDGER", ledger)
    monkeypatch.setenv("AIRFLOW__FLOWSERVICE__INTENT_STORE", "none")
    task = ingest(store=store)
    task.run()
    assert "success" == task.answer(task.question["options"][answer]).state
    assert runs_of()[-1]["id"] == task.xcoms["return_value"]
    assert answer + 1 == len(runs_of())


@needs_required_actions
def test_an_answer_is_used_once(ingest, lose_response, runs_of, questions):
    """If the response to the next POST is lost also, the task asks again, and only about the new flow run."""
    task = ingest()
    task.run()
    first = task.question["options"][0]
    lose_response()
    ended = task.answer("create")
    # Airflow cannot show another option than those of the first question.
    assert ("failed", 2) == (ended.state, questions())
    [known, new] = runs_of()
    assert first.startswith(option_of(known))
    assert new["id"] in ended.error.message
    assert known["id"] not in ended.error.message


# --- retries, killed workers and clears ---


@needs_required_actions
@pytest.mark.usefixtures("waits")
@pytest.mark.parametrize("answer", [0, 1], ids=["adopt", "create"])
def test_a_retry_after_the_answer_does_not_ask_again(ingest, runs_of, questions, monkeypatch, answer):
    """If the resumed worker dies before it uses the answer, the retry uses it."""
    task = ingest()
    task.run()

    def die(*_):
        raise RuntimeError("the worker died")

    with monkeypatch.context() as dying:
        dying.setattr(OnDemandFlowRunOperator, "_create_once", die)
        assert "up_for_retry" == task.answer(task.question["options"][answer]).state
    assert "success" == task.run().state
    assert (1, answer + 1) == (questions(), len(runs_of()))
    assert runs_of()[-1]["id"] == task.xcoms["return_value"]


@needs_required_actions
def test_a_retry_leaves_the_scheduler_time_before_it_resumes(ingest, supervisor, monkeypatch):
    """If the answer was given before, the scheduler reads the end of the worker before the task resumes."""
    from airflow_flowservice._airflow import answer_trigger

    task = ingest()
    task.run()
    with monkeypatch.context() as dying:
        dying.setattr(OnDemandFlowRunOperator, "_create_once", lambda *_: 1 / 0)
        assert "up_for_retry" == task.answer("create").state
    reads_before_sleep = []

    async def sleep(seconds):
        await asyncio.sleep(seconds)
        reads_before_sleep.append(sum("GetHITLDetailResponse" == type(each).__name__ for each in supervisor.sent))

    supervisor.sent.clear()
    # Not the module asyncio itself, which the emulator's thread uses.
    monkeypatch.setattr(answer_trigger, "asyncio", SimpleNamespace(sleep=sleep))
    assert "success" == task.run().state
    [trigger] = [each for each in task.triggers if isinstance(each, answer_trigger.AnswerTrigger)]
    assert [0] == reads_before_sleep
    assert answer_trigger.AnswerTrigger(**trigger.serialize()[1]).serialize() == trigger.serialize()


@needs_required_actions
@pytest.mark.parametrize("message", ["PutVariable", "SetXCom"])
def test_a_retry_after_the_decision_does_not_ask_again(ingest, runs_of, questions, supervisor, monkeypatch, message):
    """If the resumed worker dies while it creates the flow run, the retry finds or creates it."""
    task = ingest()
    task.run()
    send = supervisor.send
    seen = []

    def dying(msg, *args, **kwargs):
        done = send(msg, *args, **kwargs)
        if type(msg).__name__ == message and "flow_run" in str(msg):
            seen.append(msg)
            if len(seen) == 1:
                raise RuntimeError("the worker died")
        return done

    with monkeypatch.context() as patched:
        patched.setattr(supervisor, "send", dying)
        assert "up_for_retry" == task.answer("create").state
    assert "success" == task.run().state
    assert (1, 2) == (questions(), len(runs_of()))
    assert runs_of()[-1]["id"] == task.xcoms["return_value"]


@needs_required_actions
@pytest.mark.usefixtures("waits")
def test_a_clear_asks_again(ingest, runs_of, questions):
    """A cleared task removes the answer, and waits for another one."""
    task = ingest()
    task.run()
    assert "failed" == task.answer("fail").state
    task.clear()
    assert "asking" == task.run().state
    assert 2 == questions()
    assert "success" == task.answer(task.question["options"][0]).state
    assert [task.xcoms["return_value"]] == [run["id"] for run in runs_of()]


@needs_required_actions
def test_a_clear_with_another_candidate_fails(ingest, runs_of):
    """Airflow keeps the options of the first question, so the task fails if one is missing, and lists all."""
    task = ingest()
    task.run()
    task.answer("fail")
    days = {"window_start": "2026-01-01T00:00:00Z", "window_end": "2026-01-02T00:00:00Z"}
    assert "success" == ingest(task_id="other", **days).run().state
    task.clear()
    ended = task.run()
    assert ("failed", True) == (ended.state, isinstance(ended.error, FlowRunUncertainError))
    assert [True, True] == [run["id"] in ended.error.message for run in runs_of()]


@needs_required_actions
def test_a_flow_run_that_shows_its_window_meanwhile_is_adopted(ingest, emulator, runs_of):
    """After the answer `create`, no flow run is created if the list now shows the flow run of the window."""
    task = ingest()
    task.run()
    emulator.clear_faults()
    assert "success" == task.answer("create").state
    assert [task.xcoms["return_value"]] == [run["id"] for run in runs_of()]


@needs_required_actions
def test_the_window_of_the_question_is_kept(ingest, runs_of):
    """Airflow does not call `pre_execute` after the wait, and the answer is for the window that it set."""

    class Earlier(OnDemandFlowRunOperator):
        def pre_execute(self, context):
            self.window_start, self.window_end = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"

    task = ingest(Earlier)
    task.run()
    assert "success" == task.answer("create").state
    assert ["2026-01-01T00:00:00Z"] * 2 == [run["window_start"] for run in runs_of()]


# --- mapped and nested tasks ---


@needs_required_actions
def test_each_mapped_task_asks_for_itself(ingest, lose_response, runs_of):
    """The page of a mapped task has its index, and its answer counts for its window."""
    tasks = []
    for index, day in enumerate((1, 2)):
        tasks.append(
            ingest(
                map_index=index,
                window_start=f"2026-01-0{day}T00:00:00Z",
                window_end=f"2026-01-0{day + 1}T00:00:00Z",
            )
        )
        assert "asking" == tasks[-1].run().state
        lose_response()
    assert "/tasks/task/mapped/1/required_actions" in tasks[1].question["body"]
    for task in tasks:
        own = next(run for run in runs_of() if run["id"] in task.question["options"][0])
        assert "success" == task.answer(task.question["options"][0]).state
        assert own["id"] == task.last.flow_run_summary.id
    assert ["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"] == [run["window_start"] for run in runs_of()]


@needs_required_actions
def test_a_nested_operator_fails_instead(worker, lose_response, questions):
    """Airflow would resume the outer task after the answer, so a nested operator fails with the candidates."""

    class Outer(BaseOperator):
        def execute(self, context):
            inner = OnDemandFlowRunOperator(
                task_id="inner",
                flow_id=FLOW,
                delta_column="updated_at",
                on_uncertain="ask",
                uncertain_patience=0.3,
                dag=None,
            )
            return inner.execute(context)

    ended = worker.task(Outer).run()
    assert (True, 0) == (isinstance(ended.error, FlowRunUncertainError), questions())


# --- notifications, metrics and arguments ---


@needs_required_actions
def test_notifiers_get_the_page(ingest, questions, log, monkeypatch):
    """Each notifier is called once, also if one of them fails, and the log has the page."""
    pages = []

    def broken(context):
        raise ValueError("no mail server")

    task = ingest(ask_notifiers=[broken, lambda context: pages.append(context["required_actions_url"])])
    task.run()
    assert 1 == len(pages)
    assert pages[0].endswith(PAGE)
    text = "\n".join(log())
    assert PAGE in text
    assert "The notification about the question failed: ValueError: no mail server" in text

    def die(*_):
        raise RuntimeError("the worker died")

    with monkeypatch.context() as dying:
        dying.setattr(OnDemandFlowRunOperator, "_create_once", die)
        task.answer("create")
    assert "success" == task.run().state
    assert 1 == len(pages)


@pytest.mark.parametrize("operator", [OnDemandFlowRunOperator, RetriggerFlowRunOperator])
def test_airflow_without_required_actions_refuses_to_ask(monkeypatch, operator):
    """On Airflow 3.0, the DAG file has an error with a remedy."""
    monkeypatch.setattr(versions, "supports_required_actions", lambda: False)
    own = {"flow_id": FLOW} if operator is OnDemandFlowRunOperator else {"flow_run_id": "run"}
    with pytest.raises(ConfigurationError, match=r"needs Airflow 3\.1 or later") as raised:
        operator(task_id="task", on_uncertain="ask", **own)
    assert "upgrade Airflow" in raised.value.remedy
    assert "fail" == operator(task_id="task", **own).on_uncertain


@pytest.mark.before_airflow(3, 1)
def test_airflow_3_0_refuses_to_ask():
    """Airflow 3.0 itself is recognized."""
    with pytest.raises(ConfigurationError, match="on_uncertain is 'ask'"):
        OnDemandFlowRunOperator(task_id="task", flow_id=FLOW, on_uncertain="ask")


@pytest.mark.parametrize(
    "arguments",
    [{"ask_timeout": 0}, {"ask_timeout": "1 day"}, {"ask_notifiers": ["mail"]}, {"on_uncertain": "asks"}],
    ids=["no time", "text", "no notifier", "unknown"],
)
def test_invalid_arguments_are_refused(arguments):
    """Invalid arguments are errors of the DAG file."""
    with pytest.raises(ConfigurationError):
        OnDemandFlowRunOperator(task_id="task", flow_id=FLOW, **arguments)
