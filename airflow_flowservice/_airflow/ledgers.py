"""Choose the ledger of a connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_flowservice.ledger.store import Ledger


def ledger_of(conn_id: str) -> Ledger | None:
    """Return the ledger of a `flowservice` connection; None if it is disabled."""
    return None
