# SPDX-License-Identifier: Apache-2.0
"""Tests of the command, of lazy imports and of many runs."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import requests

from airflow_flowservice.emulator.__main__ import main
from airflow_flowservice.emulator.creation_rules import Creation
from airflow_flowservice.emulator.server import _bound_socket
from airflow_flowservice.emulator.settings import FILE_FLOW_ID, TABLE_FLOW_ID


@contextmanager
def command(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run the emulator in a process and yield the process and its first line of output."""
    process = subprocess.Popen(
        [sys.executable, "-m", "airflow_flowservice.emulator", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline()
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_command_prints_one_line_and_stops_on_signal(ending):
    """The command also stops without output if a client is connected."""
    with command("--port", "0", "--answer-shape", "flat") as (process, line), requests.Session() as session:
        session.trust_env = False
        url = line.removeprefix("Flow Service emulator ready on ").rstrip("\n")
        assert url.startswith("http://127.0.0.1:")
        assert 200 == session.get(f"{url}/_emulator/ledger", timeout=5).status_code
        process.send_signal(ending)
        rest, errors = process.communicate(timeout=10)

    assert (0, "", "") == (process.returncode, rest, errors)


def test_command_listens_on_loopback_only():
    """The emulator listens on no other address of this machine."""
    with command("--port", "0") as (_, line):
        port = int(line.rsplit(":", 1)[1])
        listening = {address for address, p in listeners() if p == port}

    assert {"127.0.0.1"} == listening


def listeners() -> list[tuple[str, int]]:
    """Return the addresses and ports on which this machine listens."""
    found = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with open(table) as lines:
            for line in list(lines)[1:]:
                _, local, _, state, *_ = line.split()
                address, port = local.split(":")
                if state == "0A":
                    raw = bytes.fromhex(address)[::-1]
                    name = socket.inet_ntoa(raw) if len(raw) == 4 else f"v6:{address}"
                    found.append((name, int(port, 16)))
    return found


def test_socket_has_tcp_protocol_number():
    """Only for such sockets does asyncio disable Nagle's algorithm, which delays a POST by 40 ms."""
    with _bound_socket(0) as bound:
        assert socket.IPPROTO_TCP == bound.proto


def test_port_in_use_is_reported(capsys):
    """The command prints a message without a traceback."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        status = main(["--port", str(taken.getsockname()[1])])

    assert 1 == status
    assert "Cannot listen on 127.0.0.1" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--run-seconds", "-1"], ["--answer-shape", "list"], ["--host", "0.0.0.0"]])
def test_invalid_option_is_rejected(arguments, capsys):
    """There is no option for the host, because the emulator serves only loopback."""
    with pytest.raises(SystemExit):
        main(arguments)
    assert "error:" in capsys.readouterr().err


@pytest.mark.slow
def test_package_imports_are_lazy():
    """FastAPI and uvicorn are imported on first use. Airflow and the other packages are never imported."""
    code = (
        "import sys; from airflow_flowservice.emulator import Settings;"
        "early = {'fastapi', 'uvicorn'} & set(sys.modules);"
        "from airflow_flowservice.emulator import running_emulator;"
        "ours = {m for m in sys.modules if m.startswith('airflow_flowservice.')"
        " and not m.startswith('airflow_flowservice.emulator')};"
        "print(sorted(early), sorted(ours), 'airflow' in sys.modules, 'requests' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "[] [] False False\n" == done.stdout


def seconds_per_page(client):
    """Return the runs of the table's dataflow, newest first, and the seconds that each page takes."""
    found, pages, began = [], 0, time.monotonic()
    query = {"property": f"flowId=={TABLE_FLOW_ID}", "limit": 100, "orderby": "-createdAt"}
    while True:
        page, pages = client.get("/runs", **query).json(), pages + 1
        found += [run["id"] for run in page["items"]]
        if not page["_links"]:
            return found, (time.monotonic() - began) / pages
        query["continuationToken"] = page["_links"]["next"]["href"].split("continuationToken=")[1]


def add_runs(client, hours):
    state = client.emulator.state
    for hour in hours:
        window = (hour * 3600, hour * 3600 + 3600)
        creation = Creation(
            flow=state.flows[FILE_FLOW_ID if hour % 2 else TABLE_FLOW_ID],
            params={"windowStartTime": window[0], "windowEndTime": window[1], "startTime": 0},
            start_time=0,
            window_start=window[0],
            window_end=window[1],
            delta_column=None,
        )
        state.add_run(creation, client_id="emulator-client")
    client.clock.advance(30)


@pytest.mark.slow
def test_ten_thousand_runs_are_listed(client):
    """The test reads all pages, 100 runs by id, and the ledger. A page takes at most linear time in all runs."""
    add_runs(client, range(1_000))
    _, with_a_thousand = seconds_per_page(client)
    add_runs(client, range(1_000, 10_000))
    found, with_ten_thousand = seconds_per_page(client)
    by_id = client.get("/runs", property=f"id=={','.join(found[:100])}", limit=100).json()["items"]
    flow = client.emulator.ledger(TABLE_FLOW_ID)

    assert (5_000, 100) == (len(set(found)), len(by_id))
    assert (300_000, 0) == (flow["flows"][TABLE_FLOW_ID]["ingested_records"], flow["duplicated"])
    assert with_ten_thousand < 2 * 10 * with_a_thousand
