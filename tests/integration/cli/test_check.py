# SPDX-License-Identifier: Apache-2.0
"""Verify that `airflow flowservice check` reports each fault with a remedy, against the emulator over HTTP."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from airflow_flowservice.emulator import Settings, running_emulator
from airflow_flowservice.windows.window import IngestionWindow

TABLE = "3abea21c-7e36-4be1-bec1-d3bad0e3e0de"
FILES = "c9cef9cb-c934-4467-8ef9-cbc934546741"
HOURLY = "2edc08ac-4df5-4fe6-936f-81a19ce92f5c"
DISABLED = "7d15ab1e-0f10-4d15-8ab1-ed0000000001"
UNKNOWN = "00000000-0000-4000-8000-000000000000"

OF_THE_CREDENTIAL = ["connection", "settings", "token", "service", "organization", "sandbox", "reading"]
OF_THE_FLOW = ["dataflow", "state", "schedule", "delta column", "source", "newest run"]
AT_THE_END = ["creating", "clock"]
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def check(connect: Callable[..., str], command: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that checks a connection with the given values."""

    def run(*, flow: str | None = None, extra: dict[str, Any] | None = None, **values: Any) -> Any:
        options = ["--flow-id", flow] if flow else []
        return command("check", "--conn-id", connect(extra=extra, **values), "--json", *options)

    return run


def verdicts(shown: Any) -> dict[str, str]:
    """Return the verdict of each check."""
    return {finding["check"]: finding["verdict"] for finding in shown.json}


def finding_of(shown: Any, check: str) -> tuple[str, str]:
    """Return message and remedy of a check."""
    (finding,) = (each for each in shown.json if each["check"] == check)
    return finding["message"], finding["remedy"] or ""


def test_all_checks_succeed(check: Any) -> None:
    """All checks are made, in order. The permission to create a run is not checked."""
    shown = check(flow=FILES)
    assert [*OF_THE_CREDENTIAL, *OF_THE_FLOW, *AT_THE_END] == [finding["check"] for finding in shown.json]
    assert {"creating": "not checked"} == {name: word for name, word in verdicts(shown).items() if word != "ok"}
    assert 0 == shown.status


def test_without_a_dataflow(check: Any) -> None:
    """Without `--flow-id`, the checks of the dataflow are not made."""
    shown = check()
    assert [*OF_THE_CREDENTIAL, *AT_THE_END] == list(verdicts(shown))
    assert 0 == shown.status


def test_nothing_is_created(check: Any, emulator: Any) -> None:
    """The command sends no POST except the token request."""
    check(flow=TABLE)
    assert [] == [kind for kind in emulator.ledger()["requests"] if kind.startswith("POST") and "token" not in kind]


def test_one_plain_line_for_each_check(connect: Any, command: Any) -> None:
    """If the output is not a terminal, each check has one line without colours."""
    shown = command("check", "--conn-id", connect(password="wrong"), "--flow-id", TABLE)
    lines = shown.out.splitlines()
    assert [*OF_THE_CREDENTIAL, *OF_THE_FLOW, *AT_THE_END] == [line[13:27].strip() for line in lines]
    assert ["ok", "ok", "wrong"] == [line[:13].strip() for line in lines[:3]]
    assert ". What to do: set password (client secret)" in lines[2]
    assert "\x1b" not in shown.out


WRONG: dict[str, tuple[dict[str, Any], str, list[str], list[str]]] = {
    "a wrong secret": (
        {"password": "not-the-secret"},
        "token",
        ["secret is wrong", "set password (client secret) of the connection"],
        ["service", "organization", "sandbox", "reading"],
    ),
    "a wrong client id": (
        {"login": "someone-else"},
        "token",
        ["client is unknown", "set login of the connection"],
        ["service", "organization", "sandbox", "reading"],
    ),
    "IMS cannot be reached": (
        {"extra": {"ims_url": NOWHERE}},
        "token",
        ["no connection to 127.0.0.1:9", "check ims_url in the connection's extra"],
        ["service", "organization", "sandbox", "reading"],
    ),
    "Flow Service cannot be reached": (
        {"host": NOWHERE},
        "service",
        ["no connection to 127.0.0.1:9", "check the connection's host"],
        ["organization", "sandbox", "reading"],
    ),
    "another organization": (
        {"extra": {"org_id": "OTHER@AdobeOrg"}},
        "organization",
        ["OTHER@AdobeOrg", "set org_id in the connection's extra"],
        ["sandbox", "reading"],
    ),
    "another sandbox": (
        {"extra": {"sandbox": "Prod"}},
        "sandbox",
        ["'Prod'", "the sandbox's name (not its title)"],
        ["reading"],
    ),
    "a ready token that is not valid": (
        {"password": None, "extra": {"access_token": "expired-token"}},
        "token",
        ["The OAuth token is not valid", "replace access_token in the connection's extra"],
        ["organization", "sandbox", "reading"],
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_credential(case: str, check: Any) -> None:
    """One check is wrong and has a remedy. The checks that depend on it are not made."""
    values, name, parts, unchecked = WRONG[case]
    shown = check(flow=TABLE, **values)
    found = verdicts(shown)
    assert [name] == [check for check, word in found.items() if word == "wrong"]
    assert [] == [part for part in parts if part not in ". ".join(finding_of(shown, name))]
    assert {"not checked"} == {found[check] for check in [*unchecked, *OF_THE_FLOW, "creating"]}
    assert 1 == shown.status


def test_valid_ready_token(check: Any, emulator: Any) -> None:
    """Only a request to Flow Service can check a ready token."""
    from airflow_flowservice.api.client import FlowServiceClient

    client = FlowServiceClient(
        base_url=emulator.url,
        ims_url=emulator.url,
        client_id="emulator-client",
        client_secret="emulator-secret",
        org_id="EMULATOR@AdobeOrg",
    )
    shown = check(password=None, extra={"access_token": client.fetch_token()})
    assert ("ok", 0) == (verdicts(shown)["token"], shown.status)
    assert "not renewed" in finding_of(shown, "token")[0]
    assert client.fetch_token() not in shown.out


@pytest.mark.parametrize(
    ("fault", "name", "parts"),
    [
        (
            {
                "kind": "POST /ims/token/v3",
                "action": "refuse",
                "status": 400,
                "body": {"error": "invalid_scope", "error_description": "invalid scope"},
            },
            "token",
            ["invalid scope", "check the scopes"],
        ),
        (
            {
                "kind": "POST /ims/token/v3",
                "action": "refuse",
                "status": 400,
                "body": {"error": "invalid_client", "error_description": "invalid client_secret parameter"},
            },
            "token",
            ["invalid client_secret parameter", "set password (client secret)"],
        ),
        (
            {
                "kind": "POST /ims/token/v3",
                "action": "refuse",
                "status": 400,
                "body": {"error": "invalid_client", "error_description": "invalid client_id parameter"},
            },
            "token",
            ["invalid client_id parameter", "set login of the connection"],
        ),
        (
            {"kind": "POST /ims/token/v3", "action": "answer", "body": "<html>Log in</html>"},
            "token",
            ["Log in", "check ims_url in the connection's extra"],
        ),
        (
            {"kind": "GET /flows", "action": "answer", "body": "<html>Log in</html>"},
            "service",
            ["Log in", "a proxy or a wrong host sends such a response"],
        ),
        ({"kind": "GET /flows", "action": "refuse", "status": 503}, "service", ["HTTP status 503", "wait and retry"]),
        (
            {"kind": "GET /flows", "action": "refuse", "status": 403, "code": "2120", "message": "You may not"},
            "reading",
            ["You may not", "product profile or role with the permission"],
        ),
    ],
    ids=["scopes", "secret in IMS's words", "client id in IMS's words", "proxy before IMS", "proxy", "503", "403"],
)
def test_error_responses(fault: dict[str, Any], name: str, parts: list[str], check: Any, emulator: Any) -> None:
    """Each error response is reported by the check that it belongs to."""
    emulator.plan_fault(**fault)
    shown = check(extra={"scopes": f"openid,{name}"})  # tokens are shared in a process, by their scopes among others
    assert [name] == [check for check, word in verdicts(shown).items() if word == "wrong"]
    assert [] == [part for part in parts if part not in ". ".join(finding_of(shown, name))]
    assert 1 == shown.status


def test_flow_is_checked_although_flows_cannot_be_listed(check: Any, emulator: Any) -> None:
    emulator.plan_fault(kind="GET /flows", action="refuse", status=403, code="2120", message="You may not")
    found = verdicts(check(flow=FILES))
    assert ("wrong", "ok", "ok") == (found["reading"], found["dataflow"], found["schedule"])


def test_token_that_flow_service_rejects(check: Any, emulator: Any) -> None:
    """IMS issued the token, so the client secret is valid."""
    emulator.plan_fault(kind="*", action="refuse", status=401, body={"error_code": "401013", "message": "not valid"})
    shown = check()
    assert ("ok", "wrong") == (verdicts(shown)["token"], verdicts(shown)["reading"])
    assert "IMS issued this token, but Flow Service rejects it" in finding_of(shown, "reading")[1]


@pytest.mark.parametrize(
    ("flow", "name", "verdict", "parts"),
    [
        (UNKNOWN, "dataflow", "wrong", [UNKNOWN, "check flow_id"]),
        ("a/b", "dataflow", "wrong", ["flow_id is not an identifier"]),
        (DISABLED, "state", "wrong", ["is disabled", "enable the dataflow in Experience Platform"]),
        (HOURLY, "schedule", "wrong", ["'hour', not 'once'", "use a batch dataflow that is scheduled one-time"]),
        (HOURLY, "delta column", "ok", ["'updated_at' is set"]),
        (TABLE, "delta column", "note", ["the first run must set it", "set delta_column of the operator"]),
        (FILES, "delta column", "ok", ["not needed"]),
        (FILES, "source", "ok", ["Adobe can connect to the source with the credential of connection"]),
        (FILES, "newest run", "ok", ["has no flow run yet"]),
    ],
)
def test_findings_of_a_dataflow(flow: str, name: str, verdict: str, parts: list[str], check: Any) -> None:
    """The findings state whether the dataflow accepts on-demand runs, and which parameters they need."""
    shown = check(flow=flow)
    assert verdict == verdicts(shown)[name]
    assert [] == [part for part in parts if part not in ". ".join(finding_of(shown, name))]
    assert int("wrong" in verdicts(shown).values()) == shown.status


@pytest.mark.parametrize(
    ("fault", "verdict", "part"),
    [
        ({}, "wrong", "Adobe cannot connect to the source"),
        ({"action": "answer", "body": {"items": [{"result": False}]}}, "wrong", "renew the credential"),
        ({"action": "answer", "body": {"result": False, "message": "login failed"}}, "wrong", "login failed"),
        ({"action": "answer", "body": {"result": True}}, "ok", "can connect"),
        ({"action": "answer", "body": {}}, "not checked", "no result"),
        (
            {"action": "refuse", "status": 401, "code": "1605-401", "message": "old"},
            "wrong",
            "renew the credential",
        ),
        ({"action": "refuse", "status": 403, "code": "1606", "message": "closed"}, "wrong", "renew the credential"),
        ({"action": "refuse", "status": 403, "code": "403027"}, "not checked", "did not test"),
        ({"action": "refuse", "status": 404}, "not checked", "did not test"),
    ],
    ids=str,
)
def test_source(fault: dict[str, Any], verdict: str, part: str, check: Any, emulator: Any) -> None:
    """Adobe connects to the source with the stored credential; a test that is not possible is not an error."""
    if fault:
        emulator.plan_fault(kind="GET /connections/{id}/test", **fault)
    else:
        emulator.add_flow(id=FILES, source_works=False)
    shown = check(flow=FILES)
    assert (verdict, int(verdict == "wrong")) == (verdicts(shown)["source"], shown.status)
    assert part in ". ".join(finding_of(shown, "source"))
    assert "ok" == verdicts(shown)["newest run"]


def test_source_connection_that_cannot_be_read(check: Any, emulator: Any) -> None:
    emulator.plan_fault(kind="GET /sourceConnections/{id}", action="refuse", status=403)
    shown = check(flow=FILES)
    assert ("not checked", 0) == (verdicts(shown)["source"], shown.status)


def test_unreadable_flow_specification(check: Any, emulator: Any) -> None:
    """The need for a delta column is unknown, which is not an error."""
    emulator.plan_fault(kind="GET /flowSpecs/{id}", action="refuse", status=404)
    shown = check(flow=TABLE)
    assert ("not checked", 0) == (verdicts(shown)["delta column"], shown.status)


def test_newest_run(check: Any, connect: Any, emulator: Any) -> None:
    """A failed run is a note. A run of this client id suggests the permission to create runs."""
    from airflow_flowservice._airflow import connections
    from airflow_flowservice.hooks import client_of

    now = datetime.now(timezone.utc).replace(microsecond=0)
    emulator.plan_outcome(status="failed", errors=[{"code": "CONNECTOR-1001-500", "message": "no disk"}])
    client_of(connections.stored_connection(connect())).create_run(
        flow_id=FILES, window=IngestionWindow(now - timedelta(hours=1), now), start_time=now
    )
    shown = check(flow=FILES)
    found = verdicts(shown)
    assert ("note", "not checked", 0) == (found["newest run"], found["creating"], shown.status)
    assert "is failed, created" in finding_of(shown, "newest run")[0]
    assert "CONNECTOR-1001-500: no disk" in finding_of(shown, "newest run")[0]
    assert "it created the newest one" in finding_of(shown, "creating")[0]


@pytest.mark.parametrize(("offset", "words"), [(-300, "ahead of"), (300, "behind")])
def test_wrong_clock(offset: int, words: str, connect: Any, command: Any) -> None:
    """The `Date` header shows the service's clock. A difference of more than a minute is wrong."""
    with running_emulator(Settings(clock_offset_s=offset)) as skewed:
        conn_id = connect(host=skewed.url, extra={"ims_url": skewed.url})
        shown = command("check", "--conn-id", conn_id, "--json")
    message, remedy = finding_of(shown, "clock")
    assert ("wrong", 1) == (verdicts(shown)["clock"], shown.status)
    assert f"s {words} the service's" in message
    assert abs(offset) == pytest.approx(int(message.split(" is ")[1].split()[0]), abs=5)
    assert "by NTP" in remedy


def test_clock_within_the_tolerance(connect: Any, command: Any) -> None:
    """The tolerance is one minute."""
    with running_emulator(Settings(clock_offset_s=45)) as skewed:
        conn_id = connect(host=skewed.url, extra={"ims_url": skewed.url})
        assert "ok" == verdicts(command("check", "--conn-id", conn_id, "--json"))["clock"]


def test_all_invalid_settings_are_reported_together(check: Any) -> None:
    """IMS is queried if the errors are of other settings."""
    shown = check(
        host="http://platform.adobe.io",
        extra={"org_id": "1234", "epoch_format": "iso", "timeout_s": "soon", "sandbox": "", "orgid": "x", "qqq": 1},
    )
    wrong = [finding for finding in shown.json if finding["verdict"] == "wrong"]
    assert ["settings"] * 6 == [finding["check"] for finding in wrong]
    for part in (
        "use https://",
        "org_id is '1234'",
        "epoch_format must be",
        "timeout_s is 'soon'",
        "the extra has the unknown key 'orgid' (nearest known key: 'org_id')",
        "the extra has the unknown key 'qqq'",
    ):
        assert 1 == sum(part in finding["message"] for finding in wrong), part
    assert all(finding["remedy"] for finding in wrong)
    found = verdicts(shown)
    assert ("ok", "not checked", "not checked") == (found["token"], found["service"], found["clock"])


def test_misspelled_sandbox(check: Any, emulator: Any) -> None:
    """No request is sent to the sandbox `prod`, which the connection does not name."""
    shown = check(extra={"sandbox-name": "dev"}, flow=FILES)
    found = verdicts(shown)
    assert ("wrong", "ok", "not checked", 1) == (found["settings"], found["token"], found["reading"], shown.status)
    message, remedy = finding_of(shown, "settings")
    assert "the extra has the unknown key 'sandbox-name' (nearest known key: 'sandbox')" in message
    assert "rename 'sandbox-name' to 'sandbox'" in remedy
    assert {"POST /ims/token/v3"} == set(emulator.ledger()["requests"])


@pytest.mark.parametrize("name", ["epoch_format", "timeout_s", "max_attempts"])
def test_invalid_setting_with_a_default(name: str, check: Any) -> None:
    """The other checks use the default."""
    found = verdicts(check(extra={name: "nonsense"}, flow=FILES))
    assert ("wrong", "ok", "ok") == (found["settings"], found["reading"], found["schedule"])


def test_neither_secret_nor_token(check: Any) -> None:
    """Without a credential, no request is sent."""
    shown = check(password=None)
    assert ("wrong", "not checked", 1) == (verdicts(shown)["settings"], verdicts(shown)["token"], shown.status)
    assert "neither client_secret nor access_token is set" in finding_of(shown, "settings")[0]


def test_connection_of_another_type(check: Any) -> None:
    """The connection works, but its form has other fields."""
    shown = check(conn_type="http")
    assert ("note", 0) == (verdicts(shown)["connection"], shown.status)


@pytest.mark.usefixtures("airflow_db")
def test_missing_connection(command: Any) -> None:
    """The command prints a finding and exits with 1."""
    shown = command("check", "--conn-id", "nowhere", "--json")
    assert ({"connection": "wrong"}, 1) == (verdicts(shown), shown.status)
    assert "'nowhere' does not exist" in finding_of(shown, "connection")[0]
    assert "airflow connections add nowhere" in finding_of(shown, "connection")[1]


@pytest.mark.parametrize(
    ("value", "cause"),
    [
        ("flowservice://client:q9x7/cret@127.0.0.1", "has a port that is not a number"),
        ('{"conn_type": "flowservice", "password": "q9x7cret",}', "is not valid JSON"),
        ('{"conn_type": "flowservice", "password": "q9x7cret", "org_id": "x"}', "has the unknown key 'org_id'"),
        ("flowservice://client:q9x7cret@127.0.0.1/?ims_url=https://ims", "has a '://' that is not quoted"),
        ('{"conn_type": "flowservice", "password": "q9x7cret", "extra": "\\"{}\\""}', "the extra was encoded twice"),
        ('\'{"conn_type": "flowservice", "password": "q9x7cret"}\'', "begins with a quotation mark"),
    ],
)
def test_unreadable_connection(command: Any, monkeypatch: pytest.MonkeyPatch, value: str, cause: str) -> None:
    """The message differs from that of a missing connection, and does not contain the connection."""
    monkeypatch.setenv("AIRFLOW_CONN_BROKEN", value)
    shown = command("check", "--conn-id", "broken")
    assert 1 == shown.status
    assert "the environment variable AIRFLOW_CONN_BROKEN " in shown.out
    assert cause in shown.out
    assert "fernet_key" not in shown.out
    assert "does not exist" not in shown.out
    assert "q9x7" not in shown.out + shown.err


def test_usage(command: Any) -> None:
    """Invalid arguments exit with 2."""
    assert 2 == command("check", "--flow").status


@pytest.mark.parametrize("values", [{}, {"password": "an-unmistakable-secret"}, {"host": NOWHERE}])
def test_output_has_no_secret(values: dict[str, Any], connect: Any, command: Any, emulator: Any) -> None:
    """Neither stream contains secret or token, even if a proxy returns them."""
    secret = values.get("password", "emulator-secret")
    body = f"<html>client_secret={secret}</html>"
    emulator.plan_fault(kind="GET /flows", action="answer", body=body)
    emulator.plan_fault(kind="POST /ims/token/v3", action="record_and_status", status=502, body=body, nth=1)
    conn_id = connect(extra={"scopes": f"openid,{len(values)}"}, **values)
    for options in ([], ["--json"]):
        shown = command("check", "--conn-id", conn_id, "--flow-id", TABLE, *options)
        assert secret not in shown.out + shown.err
        assert "Bearer" not in shown.out + shown.err
        assert "Traceback" not in shown.err


@pytest.mark.slow
class TestProcesses:
    """Commands in their own process, with a connection in the metadata database."""

    @pytest.fixture
    def run(self, airflow_db: Path) -> Iterator[Any]:
        """Return a function that runs a command, and delete its connection afterwards."""
        from airflow.models.connection import Connection
        from airflow.utils.session import create_session
        from sqlalchemy import delete

        def run(*arguments: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [sys.executable, "-m", *arguments],
                env=os.environ.copy(),
                capture_output=True,
                text=True,
                timeout=180,
                check=False,
            )

        yield run
        with create_session() as session:
            session.execute(delete(Connection).where(Connection.conn_id == "in_the_database"))

    def test_connection_in_the_database(self, run: Any, emulator: Any) -> None:
        """`airflow flowservice check` and `python -m airflow_flowservice check` read the metadata database."""
        from airflow_flowservice._airflow import versions

        uri = (
            f"flowservice://emulator-client:emulator-secret@{emulator.url.removeprefix('http://')}/http"
            f"?org_id=EMULATOR%40AdobeOrg&ims_url={emulator.url.replace(':', '%3A').replace('/', '%2F')}"
        )
        added = run("airflow", "connections", "add", "in_the_database", "--conn-uri", uri)
        assert 0 == added.returncode, added.stderr
        groups = [("airflow_flowservice",)]
        if versions.version() >= (3, 2):
            groups.append(("airflow", "flowservice"))
        for group in groups:
            shown = run(*group, "check", "--conn-id", "in_the_database", "--flow-id", FILES)
            assert 0 == shown.returncode, shown.stdout + shown.stderr
            assert "ok           reading       dataflows can be read" in shown.stdout
            assert "emulator-secret" not in shown.stdout + shown.stderr
