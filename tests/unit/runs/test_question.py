# SPDX-License-Identifier: Apache-2.0
"""Questions to a person: their options, their answers, and what `CreateOnce` does with them."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from airflow_flowservice.api.models import FlowRun, FlowRunStatus
from airflow_flowservice.exceptions import FlowRunUncertainError, NoAnswerError
from airflow_flowservice.ledger.entry import DataflowKey, EntryState
from airflow_flowservice.ledger.store import MemoryLedger
from airflow_flowservice.plain_text import ID_LENGTH
from airflow_flowservice.runs.intent import Attempt, Intent, Order
from airflow_flowservice.runs.ledger_intents import LedgerPolicy
from airflow_flowservice.runs.question import MAX_CANDIDATES, PersonNeededError, Question, time_left
from airflow_flowservice.windows.window import IngestionWindow

NOON = datetime(2026, 2, 1, 12, tzinfo=timezone.utc)
INTENT = Intent(order="flow window", max_tries=2, token="t", written_at=0.0)
LOST = NoAnswerError("no response")
FLOW = DataflowKey("org", "prod", "flow")


def make_run(run_id="run", *, minute=0, status="inProgress"):
    created = None if minute is None else NOON + timedelta(minutes=minute)
    return FlowRun(id=run_id, status=FlowRunStatus.IN_PROGRESS, status_word=status, created_at=created)


def make_question(*runs):
    return Question.of(
        runs, intent=INTENT, attempt=Attempt(max_tries=2), until=100.0, link=lambda run_id: f"u/{run_id}"
    )


def answered(option, *, user="jane"):
    by = {"id": "1", "name": user} if user else None
    return {"chosen_options": [option], "params_input": {}, "responded_at": NOON, "responded_by_user": by}


# --- options ---


def test_options_are_sorted_by_creation():
    """The oldest candidate comes first; a candidate without a time comes last."""
    question = make_question(make_run("b", minute=5), make_run("c", minute=None), make_run("a", minute=9))
    assert [
        "b, created 2026-02-01T12:05:00Z, inProgress",
        "a, created 2026-02-01T12:09:00Z, inProgress",
        "c, created at an unknown time, inProgress",
        "create",
        "fail",
    ] == question.options


def test_options_are_bounded_and_unique():
    """Long ids are not cut, long statuses are; a flow run that two pages list is one option."""
    ids = ["x" * (ID_LENGTH - 1) + end for end in "ab"]
    question = make_question(*(make_run(run_id, status="s" * 500) for run_id in [*ids, *ids]))
    assert 4 == len(set(question.options))
    assert max(map(len, question.options)) < ID_LENGTH + 100
    assert "create" in make_question(make_run("create")).options


def test_many_candidates_are_limited():
    """The oldest candidates are options; the text counts the others."""
    question = make_question(*(make_run(f"run-{minute:02}", minute=minute) for minute in range(MAX_CANDIDATES + 3)))
    assert (MAX_CANDIDATES + 2, 3) == (len(question.options), question.omitted)
    assert question.options[0].startswith("run-00,")
    assert str(question).endswith("; and 3 more")


def test_a_question_survives_json():
    question = make_question(make_run("a"), make_run("b", minute=None))
    assert question == Question.from_json(json.loads(json.dumps({**question.to_json(), "later": 1})))
    assert [None, None, None] == [Question.from_json(value) for value in (None, {}, {"candidates": [{}]})]


def test_old_options_are_used_if_they_have_each_candidate():
    """Airflow keeps the first options, whose statuses may be old; a candidate must not be missing."""
    first, later = make_question(make_run("a"), make_run("b")), make_question(make_run("b", status="success"))
    shown = later.shown_as(first.options)
    assert shown is not None
    assert "b" == shown.answer(answered("b, created 2026-02-01T12:00:00Z, inProgress")).flow_run_id
    assert shown.answer(answered(first.options[0])).fails
    assert first.shown_as(later.options) is None
    assert first.shown_as(first.options[:-1]) is None


# --- answers ---


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (answered("fail"), "jane chose fail"),
        (answered("fail", user=None), "no person answered in time"),
        ({"error": "too late", "error_type": "timeout"}, "no person answered in time"),
        ({"error": "no detail", "error_type": "unknown"}, "Airflow could not ask (no detail)"),
        (answered("other"), "jane chose other"),
        (None, "no person answered in time"),
    ],
    ids=["fail", "default", "timeout", "error", "unknown option", "no event"],
)
def test_an_answer_that_fails(event, text):
    answer = make_question(make_run()).answer(event)
    assert (True, text) == (answer.fails, str(answer))


def test_an_answer_that_decides():
    question = make_question(make_run())
    adopt, create = question.answer(answered(question.options[0])), question.answer(answered("create"))
    assert (("run", False), (None, False)) == ((adopt.flow_run_id, adopt.fails), (create.flow_run_id, create.fails))


def test_a_given_answer_is_read_after_the_time_limit():
    """A retry waits for at least a second, in which Airflow returns the stored answer."""
    question = make_question(make_run())
    assert 1.0 == time_left(question, now=NOON)
    assert 40.0 == time_left(question, now=datetime.fromtimestamp(60, tz=timezone.utc))


def test_an_order_survives_json(world):
    for order in (world.order(), world.order(start_time=NOON), Order(flow_id="flow", retrigger="run")):
        assert order == Order.from_json(json.loads(json.dumps(order.to_json())))


# --- creating once ---


@pytest.fixture
def asking(world):
    """Return a function that performs one attempt with `on_uncertain="ask"`."""
    world.service.hides_windows = True
    world.asked = []

    def show(question):
        world.asked.append(question)
        return question.options

    def attempt(**options):
        return world.attempt(**{"on_uncertain": "ask", "ask": show, **options})

    return attempt


def ask(asking, **options):
    """Perform an attempt that must ask, and return the question."""
    with pytest.raises(PersonNeededError) as needed:
        asking(**options)
    return needed.value.question


def test_a_retry_waits_for_the_same_question(world, asking):
    world.service.plan = [("recorded", LOST)]
    question = ask(asking)
    assert question == ask(asking, number=2)
    assert 1 == len(world.asked) == len(world.service.posted)


def test_a_clear_asks_again_with_a_new_limit(world, asking):
    world.service.plan = [("recorded", LOST)]
    first = ask(asking)
    second = ask(asking, number=2, clears=1)
    assert (2, True) == (len(world.asked), second.until > first.until)


def test_a_question_that_was_not_stored_is_asked_again(world, asking):
    """If the process dies between showing the question and storing it, the retry shows it again."""
    world.service.plan = [("recorded", LOST)]
    world.dies_at("store set before", count=2)
    with pytest.raises(world.Died):
        asking()
    ask(asking, number=2)
    assert 2 == len(world.asked)


@pytest.mark.parametrize("died_at", ["post before", "store set after"])
def test_create_is_sent_once_after_a_death(world, asking, died_at):
    """If the process dies after the answer `create`, the retry creates the flow run once, and asks nothing."""
    world.service.plan = [("recorded", LOST)]
    question = ask(asking)
    world.dies_at(died_at)
    with pytest.raises(world.Died):
        asking(answer=question.answer(answered("create")))
    outcome = asking(number=2)
    assert (1, 2, world.service.runs[1].id) == (len(world.asked), len(world.service.runs), outcome.flow_run_id)


def test_an_answer_counts_only_for_its_intent(world, asking):
    """A second use of the same answer finds the flow run that the first one created."""
    world.service.plan = [("recorded", LOST)]
    answer = ask(asking).answer(answered("create"))
    first, second = asking(answer=answer), asking(answer=answer, number=2)
    assert (first.flow_run_id, "resumed") == (second.flow_run_id, second.how)
    assert 2 == len(world.service.runs)


def test_without_all_options_the_attempt_fails(world, asking):
    world.service.plan = [("recorded", LOST)]
    with pytest.raises(FlowRunUncertainError, match="run-1 created"):
        asking(ask=lambda question: ["create", "fail"])


def test_two_tasks_ask_and_one_flow_run_is_created(world, asking):
    """Two tasks ask about the same claim. The first answer decides, and the other task uses its flow run."""
    ledger = MemoryLedger()

    def policy(owner):
        return LedgerPolicy(ledger=ledger, dataflow=FLOW, owner=owner)

    world.service.plan = [("recorded", LOST)]
    first = ask(asking, ledger=policy("a"))
    second = ask(asking, ledger=policy("b"))
    assert first.token == second.token
    created = asking(ledger=policy("a"), answer=first.answer(answered("create")))
    other = asking(ledger=policy("b"), answer=second.answer(answered("create")))
    assert (2, "reused", created.flow_run_id) == (len(world.service.runs), other.how, other.flow_run_id)


def test_an_adopted_candidate_is_in_the_ledger_without_the_question(world, asking):
    ledger = MemoryLedger()
    policy = LedgerPolicy(ledger=ledger, dataflow=FLOW, owner="a")
    world.service.plan = [("recorded", LOST)]
    question = ask(asking, ledger=policy)
    window = world.order().window
    assert isinstance(window, IngestionWindow)
    claimed = ledger.get(FLOW, window)
    assert claimed is not None
    assert (EntryState.CLAIMED, question.to_json()) == (claimed.state, claimed.intent["question"])
    asking(ledger=policy, answer=question.answer(answered(question.options[0])))
    entry = ledger.get(FLOW, window)
    assert entry is not None
    assert (EntryState.CREATED, "run-1") == (entry.state, entry.flow_run_id)
    assert "question" not in entry.intent


def test_an_intent_of_an_earlier_version_has_no_question():
    assert INTENT == Intent.from_json(INTENT.to_json())
    assert "question" not in INTENT.to_json()
    assert replace(INTENT, question={"token": "t"}) == Intent.from_json(
        {**INTENT.to_json(), "question": {"token": "t"}}
    )
