# SPDX-License-Identifier: Apache-2.0
"""Question to a person: which of several flow runs is of a window; and the answer.

Flow Service does not show the windows of the candidates, so only a person can decide. The question is kept in
the intent, so that a retry waits for the same answer instead of asking again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from airflow_flowservice.plain_text import clean_text
from airflow_flowservice.windows.window import iso

if TYPE_CHECKING:
    from datetime import datetime

    from airflow_flowservice.api.models import FlowRun
    from airflow_flowservice.runs.intent import Attempt, Intent

log = logging.getLogger(__name__)

CREATE = "create"
FAIL = "fail"
MAX_CANDIDATES = 20
_STATUS_LENGTH = 40
REMEDY = (
    "check whether one of them is of this window. If it is, mark the task as success, or run it again "
    'with {"flowservice": {"adopt": "FLOW_RUN_ID"}} as conf. If none is, set on_uncertain=\'create\' and '
    "clear the task (on_uncertain='adopt' would adopt the oldest of them)"
)


class PersonNeededError(Exception):
    """Only a person can decide which flow run is of the window; nothing has failed.

    :param question: as it is stored in the intent.
    :param is_new: False if an earlier attempt has asked it.
    """

    def __init__(self, question: Question, *, is_new: bool) -> None:
        super().__init__("a person must decide which flow run is of this window")
        self.question = question
        self.is_new = is_new


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """Flow run that may be of the window.

    :param option: text of the option for this flow run; it begins with the id, so it is unique.
    :param created: ISO 8601 in UTC, or a text for an unknown time.
    :param url: page in Experience Platform.
    """

    flow_run_id: str
    option: str
    created: str
    status: str
    url: str

    @classmethod
    def of(cls, run: FlowRun, *, url: str) -> Candidate:
        """Return the candidate of a flow run, with bounded texts."""
        created = iso(run.created_at) if run.created_at else "at an unknown time"
        status = clean_text(run.status_word or "no status", length=_STATUS_LENGTH)
        # Airflow lists the options by their texts. The id is never cut.
        return cls(
            flow_run_id=run.id,
            option=f"{_start_of_option(run.id)}{created}, {status}",
            created=created,
            status=status,
            url=url,
        )

    def __str__(self) -> str:
        return f"{self.flow_run_id} created {self.created}, {self.status}, {self.url}"


@dataclass(frozen=True, kw_only=True)
class Question:
    """Candidates of a window, for a person.

    :param token: of the intent. An answer counts only for this intent.
    :param max_tries: of the attempt. A clear increases it, and then the task asks again.
    :param until: epoch seconds after which the task fails.
    :param candidates: oldest first, at most `MAX_CANDIDATES`.
    :param omitted: number of further flow runs that may be of the window.
    """

    token: str
    max_tries: int
    until: float
    candidates: tuple[Candidate, ...]
    omitted: int = 0

    @classmethod
    def of(
        cls, runs: Iterable[FlowRun], *, intent: Intent, attempt: Attempt, until: float, link: Callable[[str], str]
    ) -> Question:
        """Return the question about flow runs in any order.

        :param link: return the page address of a flow run id.
        """
        by_id = {run.id: Candidate.of(run, url=link(run.id)) for run in runs}
        ordered = sorted(by_id.values(), key=lambda candidate: (candidate.created, candidate.flow_run_id))
        return cls(
            token=intent.token,
            max_tries=attempt.max_tries,
            until=until,
            candidates=tuple(ordered[:MAX_CANDIDATES]),
            omitted=len(ordered[MAX_CANDIDATES:]),
        )

    @property
    def options(self) -> list[str]:
        """Return the texts of the options: one for each candidate, `create` and `fail`."""
        return [*(candidate.option for candidate in self.candidates), CREATE, FAIL]

    def shown_as(self, options: Collection[str]) -> Question | None:
        """Return the question with the options that Airflow shows; None if a candidate is not among them.

        Airflow keeps the options of a task's first question, also after a clear. Their statuses may be old.
        """
        shown = {
            candidate.flow_run_id: text
            for candidate in self.candidates
            for text in options
            if text.startswith(_start_of_option(candidate.flow_run_id))
        }
        if len(shown) < len(self.candidates) or not {CREATE, FAIL} <= set(options):
            return None
        candidates = [Candidate(**{**asdict(each), "option": shown[each.flow_run_id]}) for each in self.candidates]
        return Question(**{**_values(self), "candidates": tuple(candidates)})

    def answer(self, event: Any) -> Answer:
        """Parse the event with which Airflow resumes the task.

        :param event: `{"chosen_options": [...], "responded_by_user": {"id", "name"} or None, ...}`, or
            `{"error": ..., "error_type": ...}`. Source: `airflow.providers.standard.triggers.hitl`.
        """
        values = event if isinstance(event, Mapping) else {}
        user = values.get("responded_by_user")
        name = user.get("name") if isinstance(user, Mapping) else None
        [option] = list(values.get("chosen_options") or [])[:1] or [FAIL]
        is_late = values.get("error_type") in (None, "timeout")
        ids = {candidate.option: candidate.flow_run_id for candidate in self.candidates}
        return Answer(
            token=self.token,
            option=clean_text(str(option)),
            flow_run_id=ids.get(option),
            user=clean_text(str(name)) if name else None,
            error=None if is_late else clean_text(str(values.get("error"))),
        )

    def __str__(self) -> str:
        more = f"; and {self.omitted} more" if self.omitted else ""
        return "; ".join(map(str, self.candidates)) + more

    def to_json(self) -> dict[str, Any]:
        """Return the question as a JSON object."""
        return {**_values(self), "candidates": [asdict(candidate) for candidate in self.candidates]}

    @classmethod
    def from_json(cls, value: Any) -> Question | None:
        """Parse what `to_json` returned, and ignore unknown fields. Return None if it is no question."""
        try:
            candidates = tuple(Candidate(**_known(Candidate, each)) for each in value["candidates"])
            return cls(**{**_known(cls, value), "candidates": candidates})
        except (TypeError, KeyError, AttributeError):
            return None


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Answer to a question.

    :param token: of the intent for which the question was asked.
    :param option: text of the option; `fail` also if no person answered in time.
    :param flow_run_id: the chosen flow run; None for `create`, `fail`, and a flow run that is no candidate any more.
    :param user: name of the user, if a person answered.
    :param error: Airflow's error, if it could not ask.
    """

    token: str
    option: str
    flow_run_id: str | None = None
    user: str | None = None
    error: str | None = None

    @property
    def fails(self) -> bool:
        """Return whether the task must fail."""
        return self.flow_run_id is None and self.option != CREATE

    def __str__(self) -> str:
        if self.error:
            return f"Airflow could not ask ({self.error})"
        return f"{self.user} chose {self.option}" if self.user else "no person answered in time"


def open_question(intent: Intent, attempt: Attempt) -> Question | None:
    """Return the question of an earlier attempt, which may be answered by now. A clear asks again."""
    question = Question.from_json(intent.question)
    if question is None or (question.token, question.max_tries) != (intent.token, attempt.max_tries):
        return None
    return question


def answer_to(intent: Intent, answer: Answer | None) -> Answer | None:
    """Return the answer if it is for this intent. Otherwise, another attempt or task has decided meanwhile."""
    if answer is None:
        return None
    if answer.token != intent.token:
        log.warning("The answer is for an earlier intent, so it is not used")
        return None
    log.warning("Using the answer of a person: %s", answer)
    return answer


def time_left(question: Question, *, now: datetime) -> float:
    """Return the seconds in which the question can be answered; at least one, so that a given answer is read."""
    return max(1.0, question.until - now.timestamp())


def _start_of_option(flow_run_id: str) -> str:
    return f"{flow_run_id}, created "


def _values(value: Any) -> dict[str, Any]:
    return {each.name: getattr(value, each.name) for each in fields(value)}


def _known(cls: Any, value: Mapping[str, Any]) -> dict[str, Any]:
    names = {each.name for each in fields(cls)}
    return {name: each for name, each in value.items() if name in names}
