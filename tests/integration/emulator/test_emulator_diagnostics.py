# SPDX-License-Identifier: Apache-2.0
"""Tests of the error diagnostics of batches: manifests, files of failed rows, and failed files."""

from __future__ import annotations

import json

MAPPER = {"code": "MAPPER-3700-400", "message": "not a number"}


def ended_run(client, **outcome):
    """Create a run with an outcome and return its JSON after its end."""
    client.emulator.plan_outcome(**outcome)
    run_id = client.created()
    client.clock.advance(30)
    return client.run(run_id)


def batch_of(run):
    """Return the id of the run's batch."""
    return run["activities"][-1]["targetInfo"][0]["reference"]["ids"][0]


def read(client, batch, path):
    """Read a path of a batch."""
    return client.session.get(f"{client.emulator.url}/data/foundation/export/batches/{batch}/{path}", timeout=10)


def test_manifest_links_to_the_list_of_rows(client):
    """Each failed record is one JSON line with its errors, and the size in the list is that of the file."""
    run = ended_run(client, status="partialSuccess", failed_records=2, row_errors=[MAPPER])
    address = run["activities"][-1]["statusSummary"]["extensions"]["manifest"]["failedRecords"]
    [item] = client.session.get(address, timeout=10).json()["data"]
    content = client.session.get(item["_links"]["self"]["href"], timeout=10).content
    assert ("conversion_errors_0.json", str(len(content))) == (item["name"], item["length"])
    rows = [json.loads(line) for line in content.splitlines()]
    assert ([0, 1], [[MAPPER], [MAPPER]]) == ([row["id"] for row in rows], [row["_errors"] for row in rows])
    assert 1 == client.emulator.ledger()["requests"]["GET /runs/{id}"]
    assert 2 == client.emulator.ledger()["requests"]["GET /batches/{id}/meta"]


def test_run_without_a_manifest_shows_its_batch(client):
    run = ended_run(client, status="partialSuccess", manifest=False)
    assert "extensions" not in run["activities"][-1]["statusSummary"]
    assert 1 == len(read(client, batch_of(run), "meta?path=row_errors").json()["data"])


def test_without_diagnostics_there_is_no_list(client):
    run = ended_run(client, status="partialSuccess", diagnostics=False)
    paths = ("meta?path=row_errors", "meta?path=row_errors%2Fconversion_errors_0.json", "meta")
    assert [404] * 3 == [read(client, batch_of(run), path).status_code for path in paths]


def test_failed_files(client):
    """A failed run has a batch if files are planned."""
    batch = batch_of(ended_run(client, status="failed", failed_files=["a b.csv"]))
    [item] = read(client, batch, "failed").json()["data"]
    assert "a b.csv" == item["name"]
    assert 200 == client.session.get(item["_links"]["self"]["href"], timeout=10).status_code
    assert 404 == read(client, batch, "failed?path=other.csv").status_code
    assert 404 == read(client, batch, "meta?path=row_errors").status_code


def test_failed_copy_has_no_batch(client):
    """A failed copy ends before a batch is created."""
    assert ["copyActivity"] == [activity["id"] for activity in ended_run(client, status="failed")["activities"]]


def test_batch_of_a_success_has_no_failed_records(client):
    batch = batch_of(ended_run(client, status="success"))
    assert 404 == read(client, batch, "meta?path=row_errors").status_code
    assert [] == read(client, batch, "failed").json()["data"]


def test_data_access_requires_a_token(client):
    batch = batch_of(ended_run(client, status="partialSuccess"))
    client.session.headers.pop("Authorization")
    assert 401 == read(client, batch, "meta?path=row_errors").status_code
    assert 401 == read(client, batch, "failed").status_code
