# SPDX-License-Identifier: Apache-2.0
"""Measure how long the SQL ledger takes to read all windows of many dataflows from a real PostgreSQL."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from airflow_flowservice.demo.postgres import EmbeddedPostgres
from airflow_flowservice.demo.processes import Supervisor
from airflow_flowservice.ledger.entry import DataflowKey
from airflow_flowservice.ledger.sql_ledger import SqlLedger
from airflow_flowservice.windows.window import EPOCH

_FILL = """
INSERT INTO flowservice_ledger (dataflow_digest, window_start, window_end, organization, sandbox, flow_id, state, owner,
    flow_run_id, delivered, intent, output_records, updated_at, version)
SELECT :digest, 1767225600 + 86400 * day, 1767312000 + 86400 * day, :organization, :sandbox, :flow_id, 'ingested',
    'ingest_orders/scheduled__2026-01-01T00:00:00+00:00/ingest/-1', gen_random_uuid()::text, 1, :intent,
    1000000 + day,
    1767312001.5 + 86400 * day, 3
FROM generate_series(0, :windows - 1) AS day
"""
_CONN_ID = "flowservice_ledger"
_INTENT = {"order": "0" * 64, "max_tries": 2, "token": "0" * 32, "written_at": 1767225600.5, "flow_name": "Orders"}


def main() -> None:
    """Start PostgreSQL, fill the ledger, and read it several times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataflows", type=int, default=500)
    parser.add_argument("--windows", type=int, default=365, help="of each dataflow")
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Supervisor(log_folder=Path(folder)) as supervisor:
        server = EmbeddedPostgres(folder=Path(folder) / "database", supervisor=supervisor)
        server.start()
        measure(server.url(), options)


def measure(url: str, options: argparse.Namespace) -> None:
    """Fill the ledger, and print the seconds and the CPU seconds of each reading."""
    ledger = SqlLedger(url)
    ledger.migrate()
    dataflows = [DataflowKey("ORG@AdobeOrg", "prod", f"flow-{number:05}") for number in range(options.dataflows)]
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        for each in dataflows:
            values = {"digest": each.digest, "windows": options.windows, "intent": json.dumps(_INTENT), **vars(each)}
            connection.execute(sa.text(_FILL), values)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("VACUUM ANALYZE flowservice_ledger"))
    os.environ[f"AIRFLOW_CONN_{_CONN_ID.upper()}"] = url.replace("postgresql+psycopg2:", "postgres:")
    kinds = {
        "all entries": lambda: sum(1 for _ in ledger.entries()),
        "entries of the dataflows": lambda: sum(1 for _ in ledger.entries(dataflows)),
        "all entries, for the overview": overview,
    }
    for kind, read in [*kinds.items()] * options.repeat:
        began, used = time.perf_counter(), time.process_time()
        count = read()
        seconds, cpu = time.perf_counter() - began, time.process_time() - used
        print(f"{kind}: {count} in {seconds:.2f} s, of which {cpu:.2f} s of this process", flush=True)


def overview() -> int:
    """Read the entries as the overview of all dataflows and `freshness` do; return their number."""
    from airflow_flowservice._airflow.dataflow_ledger import LedgerSource
    from airflow_flowservice._airflow.fleet_ledger import read_ledgers

    unused: Any = None
    found = read_ledgers(unused, [LedgerSource(ledger_conn_id=_CONN_ID)], since=EPOCH)
    return sum(len(records.ingested) for records in found.values())


if __name__ == "__main__":
    main()
