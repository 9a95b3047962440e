# SPDX-License-Identifier: Apache-2.0
"""A small service with the APIs of dbt Cloud, Databricks, Airbyte and Fivetran, as far as `peers.py` needs them.

It answers over TLS on loopback with a new certificate, because the providers of dbt Cloud and Fivetran always
use TLS. It counts requests and flow runs, and can lose the response to a request that starts a run.
"""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_DAY = timedelta(days=1)


@dataclass(kw_only=True)
class Runs:
    """Runs that the service has, and what it counts.

    :param ended: all runs have succeeded.
    :param lost: number of responses to lose, of requests that start a run.
    """

    ids: list[int] = field(default_factory=list)
    tokens: dict[str, int] = field(default_factory=dict)
    requests: int = 0
    ended: bool = False
    lost: int = 0
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self, token: str | None = None) -> int:
        """Start a run; return the earlier one for a token that was sent before, as Databricks does."""
        with self._lock:
            if token and token in self.tokens:
                return self.tokens[token]
            run_id = next(self._numbers)
            self.ids.append(run_id)
            if token:
                self.tokens[token] = run_id
            return run_id

    def count_request(self) -> None:
        """Count a request."""
        with self._lock:
            self.requests += 1


@contextmanager
def running_service(folder: Path) -> Iterator[tuple[Runs, str, Path]]:
    """Run the service; yield its runs, its address as `host:port`, and the file of its certificate."""
    certificate = write_certificate(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    runs = Runs()
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"runs": runs, "timeout": 120}))
    server.context = context
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield runs, f"127.0.0.1:{server.server_address[1]}", certificate
    finally:
        server.shutdown()
        server.server_close()


def write_certificate(folder: Path) -> Path:
    """Write a certificate for 127.0.0.1 that is valid for a day, and its key, into one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(timezone.utc)
    certificate = (
        x509.CertificateBuilder(issuer_name=name, subject_name=name, public_key=key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _DAY)
        .not_valid_after(now + _DAY)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = folder / "certificate.pem"
    path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    return path


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024
    context: ssl.SSLContext

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Begin TLS in the connection's own thread, so that a slow peer delays no other."""
        request.settimeout(120)
        with self.context.wrap_socket(request, server_side=True) as secure:
            super().finish_request(secure, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore connections that a peer closed."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    runs: Runs

    def do_GET(self) -> None:
        self._respond(started=False)

    def do_POST(self) -> None:
        self._respond(started=True)

    def _respond(self, *, started: bool) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length) or b"{}")
        self.runs.count_request()
        address = urlsplit(self.path)
        answer = response(self.runs, address.path, parse_qs(address.query), body, is_start=started)
        if started and self.runs.lost > 0:
            self.runs.lost -= 1
            self.close_connection = True
            return
        text = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *args: Any) -> None:
        """Write no log."""


def response(runs: Runs, path: str, query: dict[str, list[str]], body: Any, *, is_start: bool) -> dict[str, Any]:
    """Return the response to a request of one of the four providers."""
    if path == "/count":
        return {"requests": runs.requests}
    if path.startswith("/airbyte/"):
        return _airbyte(runs, path, is_start=is_start)
    if path.startswith("/v1/"):
        return _fivetran(runs, path, is_start=is_start)
    if "/jobs/runs/" in path or path.endswith("/jobs/run-now"):
        return _databricks(runs, query, body, is_start=is_start)
    return _dbt(runs, path, is_start=is_start)


def _dbt(runs: Runs, path: str, *, is_start: bool) -> dict[str, Any]:
    """Answer as dbt Cloud's API, version 2: status 3 is running, 10 is success."""
    parts = path.strip("/").split("/")
    if is_start:
        return {"data": {"id": runs.start(), "href": "https://127.0.0.1/run", "status": 1}}
    if parts[-1] == "runs":
        running = [] if runs.ended else runs.ids[-1:]
        return {"data": [{"id": run_id, "href": "https://127.0.0.1/run", "status": 3} for run_id in running]}
    return {"data": {"id": 1, "account_id": 1, "status": 10 if runs.ended else 3, "href": "https://127.0.0.1/run"}}


def _databricks(runs: Runs, query: dict[str, list[str]], body: Any, *, is_start: bool) -> dict[str, Any]:
    """Answer as Databricks' Jobs API."""
    if is_start:
        return {"run_id": runs.start(body.get("idempotency_token"))}
    run_id = int(query["run_id"][0]) if "run_id" in query else int(body["run_id"])
    state = {"life_cycle_state": "RUNNING", "state_message": ""}
    if runs.ended:
        state |= {"life_cycle_state": "TERMINATED", "result_state": "SUCCESS"}
    return {"run_id": run_id, "job_id": 1, "run_page_url": "https://127.0.0.1/run", "tasks": [], "state": state}


def _airbyte(runs: Runs, path: str, *, is_start: bool) -> dict[str, Any]:
    """Answer as Airbyte's public API."""
    run_id = runs.start() if is_start else int(path.rpartition("/")[2])
    status = "pending" if is_start else "succeeded" if runs.ended else "running"
    begin = "2026-01-01T00:00:00Z"
    return {"jobId": run_id, "status": status, "jobType": "sync", "connectionId": "connection", "startTime": begin}


def _fivetran(runs: Runs, path: str, *, is_start: bool) -> dict[str, Any]:
    """Answer as Fivetran's API."""
    if is_start:
        runs.start()
        return {"code": "Success", "message": "Sync has been successfully triggered"}
    now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    status = {"setup_state": "connected", "sync_state": "scheduled" if runs.ended else "syncing"}
    data = {
        "id": path.split("/")[3],
        "service": "google_sheets",
        "schema": "s.t",
        "paused": False,
        "schedule_type": "manual",
        "succeeded_at": now if runs.ended else "2020-01-01T00:00:00.000000Z",
        "failed_at": None,
        "status": {**status, "rescheduled_for": None, "tasks": [], "warnings": []},
    }
    return {"code": "Success", "data": data}
