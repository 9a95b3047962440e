# SPDX-License-Identifier: Apache-2.0
"""Verify that `airflow flowservice failed-records` shows the failed rows, against the emulator over HTTP."""

from __future__ import annotations

import json
import logging
import resource
import signal
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pytest
from raw_server import RawServer

from airflow_flowservice.api.client import FlowServiceClient
from airflow_flowservice.windows.window import IngestionWindow

TABLE = "3abea21c-7e36-4be1-bec1-d3bad0e3e0de"
START = datetime(2026, 1, 2, tzinfo=timezone.utc)
DAY = timedelta(days=1)
MAPPER = {"code": "MAPPER-3700-400", "message": "The amount is not a number."}
MISSING = {"code": "INGEST-1555-400", "message": "A required field is missing."}
META = "GET /batches/{id}/meta"
FAILED_FILES = "GET /batches/{id}/failed"


@pytest.fixture
def failed_records(connect: Callable[..., str], command: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that runs the command for a flow run."""

    def run(flow_run_id: str, *options: str, **connection: Any) -> Any:
        conn_id = connect(**connection)
        return command("failed-records", "--flow-run-id", flow_run_id, "--conn-id", conn_id, *options)

    return run


@pytest.fixture
def created(emulator: Any) -> Callable[..., str]:
    """Return a function that creates a flow run with an outcome, and returns its id."""

    def create(**outcome: Any) -> str:
        emulator.plan_outcome(**outcome)
        settings = emulator.settings
        with FlowServiceClient(
            base_url=emulator.url,
            ims_url=emulator.url,
            client_id=settings.client_id,
            client_secret=settings.client_secret,
            org_id=settings.org_id,
        ) as client:
            window = IngestionWindow(START, START + DAY)
            # Times are sent in whole seconds, rounded up, and the flow run must not start later than now.
            now = datetime.now(timezone.utc) - timedelta(seconds=5)
            return client.create_run(flow_id=TABLE, window=window, start_time=now, delta_column="updated_at").id

    return create


@pytest.mark.parametrize("manifest", [True, False], ids=["manifest", "batch"])
def test_codes_are_counted_with_an_example(failed_records: Any, created: Any, manifest: bool) -> None:
    """The rows of all files are counted, from the run's manifest or from its batch."""
    run = created(status="partialSuccess", failed_records=1200, row_errors=[MAPPER, MAPPER, MISSING], manifest=manifest)
    shown = failed_records(run)
    assert 1 == shown.status, shown.err
    lines = [" ".join(line.split()) for line in shown.out.splitlines()]
    assert (
        f"Flow run {run} is partialSuccess, 1,440 records read, 240 records written, 1,200 records failed" == lines[0]
    )
    assert "MAPPER-3700-400 | 800 | The amount is not a number." in lines
    assert "INGEST-1555-400 | 400 | A required field is missing." in lines
    examples = lines[lines.index("An example of each:") + 1 :][:2]
    assert ["MAPPER-3700-400", "INGEST-1555-400"] == [line.split()[0] for line in examples]
    assert '"updated_at": "2026-01-02 00:00:00", "amount": "n/a"' in examples[0]
    assert "1,200 failed rows." == lines[-1]


def test_output_has_all_rows_for_the_owner_only(failed_records: Any, created: Any, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("of an earlier run")
    file.chmod(0o644)
    shown = failed_records(created(status="partialSuccess", failed_records=1200), "--file", str(file))
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert 1200 == len({row["id"] for row in rows})
    assert "MAPPER-3700-400" == rows[-1]["_errors"][0]["code"]
    assert 0o600 == file.stat().st_mode & 0o777
    assert [file] == list(tmp_path.iterdir())
    assert shown.out.endswith(f"1,200 failed rows. The rows are in {file}.\n")


def test_limit(failed_records: Any, created: Any, tmp_path: Path, emulator: Any) -> None:
    """The second file is not requested."""
    file = tmp_path / "rows.jsonl"
    options = ("--limit", "3", "--file", str(file), "--output", "json")
    shown = failed_records(created(status="partialSuccess", failed_records=1200), *options)
    assert (3, True, 1200, 3) == (
        shown.json["rows"],
        shown.json["is_cut"],
        shown.json["failed_records"],
        len(file.read_text().splitlines()),
    )
    assert 2 == emulator.ledger()["requests"][META]


def test_format_is_deprecated(failed_records: Any, created: Any) -> None:
    """`--format` of earlier versions has the same output as `--output`, and a note."""
    run = created(status="partialSuccess", failed_records=2)
    earlier, shown = failed_records(run, "--format", "json"), failed_records(run, "-o", "json")
    assert shown.json == earlier.json
    assert ("", True) == (shown.err, "use --output" in earlier.err)


@pytest.mark.parametrize("output", ["json", "yaml", "plain"])
def test_each_format_shows_the_codes(failed_records: Any, created: Any, output: str) -> None:
    """Only `plain` omits the examples."""
    shown = failed_records(created(status="partialSuccess", failed_records=2), "--output", output)
    assert (1, "") == (shown.status, shown.err)
    assert "MAPPER-3700-400" in shown.out
    assert ("amount" in shown.out.replace("made-up field amount", "")) == (output != "plain")


def test_failed_files_are_listed(failed_records: Any, created: Any) -> None:
    shown = failed_records(created(status="failed", failed_files=["orders-1.csv", "_SUCCESS"]))
    assert 1 == shown.status
    assert "  orders-1.csv (8 bytes), batch 01" in shown.out
    assert "_SUCCESS" not in shown.out


def test_nothing_failed(failed_records: Any, created: Any, tmp_path: Path) -> None:
    """The exit status is 0, and no file is written."""
    shown = failed_records(created(status="success"), "--file", str(tmp_path / "rows.jsonl"))
    assert (0, "No row and no file failed.") == (shown.status, shown.out.splitlines()[-1])
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "outcome",
    [{"status": "partialSuccess", "failed_records": 7, "diagnostics": False}, {"status": "failed"}],
    ids=["not enabled", "failed copy"],
)
def test_advice_without_diagnostics(failed_records: Any, created: Any, outcome: dict[str, Any]) -> None:
    """The message names the counts and errors of the flow run, and how to enable error diagnostics."""
    shown = failed_records(created(**outcome))
    assert (2, "") == (shown.status, shown.out)
    assert "Adobe has no list of its failed rows" in shown.err
    assert "enable error diagnostics on the dataflow" in shown.err
    assert ("7 records failed" if "diagnostics" in outcome else "CONNECTOR-1001-500") in shown.err


def test_active_flow_run(failed_records: Any, created: Any) -> None:
    shown = failed_records(created(status="success", queue_s=100))
    assert 2 == shown.status
    assert "it has not ended. Run this command again after its end" in shown.err


def test_unknown_flow_run(failed_records: Any) -> None:
    shown = failed_records("nowhere")
    assert 2 == shown.status
    assert "check flow_run_id and the connection's sandbox" in shown.err


@pytest.mark.parametrize("where", ["list", "next page"])
def test_link_to_another_host_is_not_followed(failed_records: Any, created: Any, emulator: Any, where: str) -> None:
    """The other host receives no request, and therefore no token."""
    with RawServer(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") as other:
        href = f"{other.url}/data/foundation/export/batches/B/meta?path=row_errors"
        links = {"href": href}
        item = {"name": "rows.json", "length": "10", "_links": {"self": links}}
        body = {"data": [item]} if where == "list" else {"data": [], "_links": {"next": links}}
        emulator.plan_fault(kind=META, action="answer", body=body)
        shown = failed_records(created(status="partialSuccess", failed_records=2))
        assert (2, "") == (shown.status, shown.out)
        assert "link to another host" in shown.err
        assert [] == other.requests


@pytest.mark.parametrize("action", ["half_body", "close"])
def test_incomplete_download_leaves_no_file(
    failed_records: Any, created: Any, emulator: Any, tmp_path: Path, action: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The earlier file stays unchanged, and no row is in the error or in the logs."""
    caplog.set_level(logging.DEBUG)
    run = created(status="partialSuccess", failed_records=1200)
    file = tmp_path / "rows.jsonl"
    file.write_text("of an earlier run")
    for nth in (2, 3):
        emulator.plan_fault(kind=META, action=action, nth=nth)
    shown = failed_records(run, "--file", str(file), extra={"max_attempts": 2})
    assert (2, "") == (shown.status, shown.out)
    assert "no complete response arrived" in shown.err
    assert ["of an earlier run"] == [each.read_text() for each in tmp_path.iterdir()]
    assert "n/a" not in shown.err + caplog.text


def test_rows_are_not_logged(
    failed_records: Any, created: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    shown = failed_records(created(status="partialSuccess", failed_records=3), "--file", str(tmp_path / "r.jsonl"))
    assert 1 == shown.status
    assert "n/a" in shown.out
    assert "n/a" not in shown.err + caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--limit", "0"), "--limit is 0"),
        (("--file", "json"), "use --output json"),
        (("--file", "/nowhere/rows.jsonl"), "does not exist"),
        (("--file", "/dev/null"), "not a regular file"),
        (("--file", "/tmp"), "not a regular file"),
        (("--file", "-"), "--file - is not a file"),
        (("--file", "r" * 300), "cannot be written: File name too long"),
        (("--file", "a\0b"), "cannot be written"),
    ],
    ids=["limit", "format", "no folder", "device", "folder", "dash", "long name", "null character"],
)
def test_invalid_options(
    failed_records: Any, emulator: Any, options: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is requested."""
    shown = failed_records("run", *options)
    assert 2 == shown.status
    assert message in shown.err
    assert {} == emulator.ledger()["requests"]


def test_read_only_permission_of_datasets(failed_records: Any, created: Any, emulator: Any) -> None:
    emulator.plan_fault(kind=META, action="refuse", status=403, code="403", message="no")
    shown = failed_records(created(status="partialSuccess", failed_records=2))
    assert 2 == shown.status
    assert "permission to view datasets" in shown.err


@pytest.mark.parametrize("status", [404, 410])
def test_file_of_failed_rows_that_was_removed(failed_records: Any, created: Any, emulator: Any, status: int) -> None:
    """The host is correct, since the list of files came from it."""
    run = created(status="partialSuccess", failed_records=1200)
    emulator.plan_fault(kind=META, action="refuse", status=status, message="no such file", nth=2)
    shown = failed_records(run)
    assert (2, "") == (shown.status, shown.out)
    assert "no such file" in shown.err
    assert "30 days" in shown.err
    assert "the connection's host" not in shown.err


def test_remedy_of_a_refused_list(failed_records: Any, created: Any, emulator: Any) -> None:
    """No task is concerned, so the remedy does not name one."""
    emulator.plan_fault(kind=META, action="refuse", status=400, message="bad")
    shown = failed_records(created(status="partialSuccess", failed_records=2))
    assert 2 == shown.status
    assert "x-request-id" in shown.err
    assert "clear the task" not in shown.err


@pytest.mark.parametrize("status", [400, 403, 500])
def test_rows_are_shown_if_the_failed_files_cannot_be_listed(
    failed_records: Any, created: Any, emulator: Any, status: int
) -> None:
    run = created(status="partialSuccess", failed_records=2)
    emulator.plan_fault(kind=FAILED_FILES, action="refuse", status=status, message="no list", times=5)
    shown = failed_records(run, "--output", "json")
    assert (1, 2) == (shown.status, shown.json["rows"])
    assert "no list" in shown.json["failed_files_error"]
    assert "Note: The files that failed could not be listed" in shown.err


def test_failed_files_that_cannot_be_listed_are_an_error_without_rows(
    failed_records: Any, created: Any, emulator: Any
) -> None:
    run = created(status="failed", failed_files=["orders-1.csv"])
    emulator.plan_fault(kind=FAILED_FILES, action="refuse", status=500, message="no list", times=5)
    shown = failed_records(run)
    assert (2, "") == (shown.status, shown.out)
    assert "no list" in shown.err


RUN = "0d0d0d0d-0000-4000-8000-000000000000"
LIST = {
    "data": [{"name": "r", "_links": {"self": {"href": "/data/foundation/export/batches/B1/meta?path=row_errors%2Fr"}}}]
}


def serving(rows: Callable[[], Any], *, manifest: str | None = None) -> RawServer:
    """Create a server with one flow run whose batch has the rows.

    :param manifest: address of the failed rows in the flow run's manifest.
    """

    def answer(value: Any) -> list[bytes]:
        body = json.dumps(value).encode()
        return [b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)]

    def script(request: bytes) -> Any:
        path = request.split(b" ")[1]
        if b"row_errors%2Fr" in path:
            return chain([b"HTTP/1.1 200 OK\r\n\r\n"], rows())
        if path.endswith(b"/failed"):
            return answer({"data": []})
        if path.endswith(b"row_errors"):
            return answer(LIST)
        target: list[Any] = [{"targetInfo": [{"reference": {"ids": ["B1"]}}]}]
        if manifest:
            target.append({"statusSummary": {"extensions": {"manifest": {"failedRecords": manifest}}}})
        return answer(
            {"items": [{"id": RUN, "metrics": {"statusSummary": {"status": "failed"}}, "activities": target}]}
        )

    return RawServer(script)


def of_server(server: RawServer, **extra: Any) -> dict[str, Any]:
    """Return the values of a connection to the server, with a ready token."""
    return {"host": server.url, "password": None, "extra": {"access_token": "a-ready-token", **extra}}


def test_memory_is_bounded(failed_records: Any, tmp_path: Path) -> None:
    """A file of 60 MB with lines of 200 kB, and one line of 20 MB, takes little memory."""
    line = json.dumps({"text": "x" * 200_000, "_errors": [MAPPER]}).encode() + b"\n"
    with serving(lambda: [line]) as server:
        assert 1 == failed_records(RUN, **of_server(server)).status  # imports all modules
    with serving(lambda: chain(repeat(line, 200), repeat(b"y" * 2**20, 20), [b"\n"], [line])) as server:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        shown = failed_records(RUN, "--file", str(tmp_path / "rows.jsonl"), **of_server(server))
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert 1 == shown.status, shown.err
    assert "201 failed rows, 1 unreadable line." in shown.out
    assert grown < 20_000  # kB


@pytest.mark.slow
def test_slow_download_ends(failed_records: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that sends one byte again and again cannot hold the command for longer than the limit."""
    monkeypatch.setattr("airflow_flowservice.api.failed_records.DOWNLOAD_TIMEOUTS", 1)
    with serving(lambda: chain.from_iterable(repeat([0.05, b"x"], 600))) as server:
        shown = failed_records(RUN, **of_server(server, timeout_s=3, max_attempts=1))
    assert 2 == shown.status
    assert "no complete response arrived within 3 s" in shown.err


@pytest.mark.parametrize(
    "manifest",
    ["https://platform-int.adobe.io/data/foundation/export/batches/B1/meta?path=row_errors", "{ADDRESS}", "/tmp/rows"],
    ids=["other host", "placeholder", "path"],
)
def test_manifest_that_cannot_be_followed(failed_records: Any, manifest: str) -> None:
    """The rows are those of the batch, at the connection's host. One of Adobe's examples has another host."""
    with serving(lambda: [json.dumps({"_errors": [MAPPER]}).encode()], manifest=manifest) as server:
        shown = failed_records(RUN, **of_server(server))
    assert 1 == shown.status, shown.err
    assert "1 failed row." in shown.out


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Handle SIGINT as in a terminal. A process in the background of a shell ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_interrupt_leaves_no_file(failed_records: Any, tmp_path: Path) -> None:
    """The message is one line, without a traceback."""
    row = json.dumps({"_errors": [MAPPER]}).encode() + b"\n"

    def interrupted() -> Any:
        yield row
        signal.raise_signal(signal.SIGINT)
        yield from repeat(row, 100)

    file = tmp_path / "rows.jsonl"
    with serving(interrupted) as server:
        shown = failed_records(RUN, "--file", str(file), **of_server(server))
    assert (130, "") == (shown.status, shown.out)
    assert "Error: interrupted" in shown.err
    assert [] == list(tmp_path.iterdir())
