"""Looking for the run that an intent speaks of, among those that the dataflow has got since."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from itertools import islice
from typing import TYPE_CHECKING

from airflow_flowservice.exceptions import ApiError, FlowRunUncertainError

if TYPE_CHECKING:
    from airflow_flowservice.api.models import FlowRun
    from airflow_flowservice.runs.intent import Intent, Order, Service

_READ_AT_MOST = 10_000
# The service's clock, which stamps the runs, and the worker's, which stamps the intent, may differ.
_CLOCKS_DIFFER = timedelta(minutes=15)


@dataclass(frozen=True, kw_only=True)
class Search:
    """Looks again and again, since a new run may take minutes to show.

    :param patience: seconds until what is there counts as all there is.
    :param poll: seconds between two looks.
    """

    service: Service
    patience: float
    poll: float
    monotonic: Callable[[], float]
    sleep: Callable[[float], None]

    def __call__(self, order: Order, intent: Intent, is_it: Callable[[FlowRun], bool]) -> list[FlowRun]:
        """The flow's new runs: at once if the one is among them, else what is there when patience ends.

        :raises FlowRunUncertainError: there are too many to compare.
        """
        end = self.monotonic() + self.patience
        while True:
            is_last = self.monotonic() >= end
            try:
                runs = self._news(order, intent)
            except ApiError as error:
                if is_last or not error.retryable:
                    raise
            else:
                if is_last or any(map(is_it, runs)):
                    return runs
            self.sleep(min(self.poll, max(0.0, end - self.monotonic())))

    def _news(self, order: Order, intent: Intent) -> list[FlowRun]:
        since = datetime.fromtimestamp(intent.written_at, tz=timezone.utc) - _CLOCKS_DIFFER
        listed = self.service.list_runs(flow_id=order.flow_id, created_since=since, limit=100)
        runs = list(islice(listed, _READ_AT_MOST))
        if len(runs) == _READ_AT_MOST and not any(intent.judge(run, order) == "ours" for run in runs):
            raise FlowRunUncertainError(
                f"a flow run may have been created, and the flow has had {_READ_AT_MOST} runs or more since then",
            )
        return [run for run in runs if run.flow_id in (None, order.flow_id) and intent.is_news(run)]
