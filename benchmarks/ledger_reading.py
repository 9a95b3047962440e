# SPDX-License-Identifier: Apache-2.0
"""Measure how long the ledger's entries in Airflow's Variables take to read from PostgreSQL.

    python benchmarks/ledger_reading.py --dataflows 500 --windows 365

The Variables are in the table of Airflow, in an embedded PostgreSQL (package `airflow-flowservice[demo]`).
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

from airflow_flowservice._airflow.dataflow_ledger import LedgerSource
from airflow_flowservice._airflow.fleet_ledger import read_ledgers
from airflow_flowservice._airflow.metadata_ledger import MetadataLedger
from airflow_flowservice._airflow.variable_ledger import ledger_key
from airflow_flowservice.demo.postgres import EmbeddedPostgres
from airflow_flowservice.demo.processes import Supervisor
from airflow_flowservice.ledger.entry import DataflowKey, EntryState, LedgerEntry
from airflow_flowservice.windows.window import IngestionWindow

BEGIN = datetime(2026, 1, 1, tzinfo=timezone.utc)
DAY = timedelta(days=1)
SOURCES = [LedgerSource()]
WEEK = IngestionWindow(BEGIN + 7 * DAY, BEGIN + 14 * DAY)
TABLE = """CREATE TABLE variable (id serial PRIMARY KEY, key varchar(250) UNIQUE, val text, description text,
    is_encrypted boolean, team_name varchar(50))"""


def dataflow(number: int) -> DataflowKey:
    return DataflowKey("1234567890ABCDEF@AdobeOrg", "prod", f"3abea21c-7e36-4be1-bec1-{number:012}")


def rows(dataflows: int, windows: int) -> list[dict[str, str]]:
    """Return the Variables; an encrypted value is about a third longer than the entry."""
    spans = [IngestionWindow(BEGIN + day * DAY, BEGIN + (day + 1) * DAY) for day in range(windows)]
    made = []
    for number in range(dataflows):
        for span in spans:
            entry = LedgerEntry(
                dataflow=dataflow(number),
                window=span,
                state=EntryState.INGESTED,
                owner=f"ingest_{number}/scheduled__{span.end:%Y-%m-%dT%H:%M:%S}+00:00/ingest/-1",
                flow_run_id="e5b6ba25-4a1c-4e2a-9d2e-000000000000",
                delivered=True,
                output_records=123456,
                updated_at=1767225600.123456,
                version=3,
            )
            value = json.dumps({**entry.to_json(), "written_by": "0" * 32})
            made.append({"key": ledger_key(*entry.key), "val": "g" * (len(value) * 4 // 3), "description": value})
    return made


def measured(name: str, function: Callable[[], Any]) -> Any:
    """Print the seconds of a call: elapsed, and of this process on the CPU."""
    elapsed, cpu = time.perf_counter(), time.process_time()
    result = function()
    elapsed, cpu = time.perf_counter() - elapsed, time.process_time() - cpu
    print(f"{name}: {elapsed:.2f} s, CPU {cpu:.2f} s")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataflows", type=int, default=500)
    parser.add_argument("--windows", type=int, default=365)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Supervisor(log_folder=Path(folder) / "logs") as supervisor:
        database = EmbeddedPostgres(folder=Path(folder) / "postgres", supervisor=supervisor)
        database.start()
        engine = create_engine(database.url())
        with Session(engine) as session:
            session.execute(text(TABLE))
            columns = "key, val, description, is_encrypted"
            insert = text(f"INSERT INTO variable ({columns}) VALUES (:key, :val, :description, true)")
            session.execute(insert, rows(options.dataflows, options.windows))
            session.commit()
            ledger = MetadataLedger(session)
            for turn in ("first", "second"):
                print(f"{turn} time:")
                found = measured("  all rows, not parsed", ledger.rows)
                print(f"  {len(found)} rows")
                # The overview of all dataflows and `freshness` read the entries in this way.
                measured("  all entries, for the overview", lambda: read_ledgers(session, SOURCES, since=BEGIN))
                measured("  all entries", lambda: list(ledger.entries()))
                measured("  entries of one dataflow", lambda: list(ledger.entries([dataflow(1)])))
                measured("  only json.loads of all entries", lambda rows=found: [json.loads(row.text) for row in rows])
                measured("  entries of one week", lambda: list(ledger.entries(within=WEEK)))
        engine.dispose()


if __name__ == "__main__":
    main()
