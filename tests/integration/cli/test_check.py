"""`airflow flowservice check` against the emulator over real HTTP: each fault is told apart, with a remedy."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
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
OF_THE_FLOW = ["dataflow", "state", "schedule", "delta column", "newest run"]
AT_THE_END = ["creating", "clock"]
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def check(connect: Callable[..., str], command: Callable[..., Any]) -> Callable[..., Any]:
    """Check a connection of these values."""

    def run(*, flow: str | None = None, extra: dict[str, Any] | None = None, **values: Any) -> Any:
        options = ["--flow-id", flow] if flow else []
        return command("check", "--conn-id", connect(extra=extra, **values), "--json", *options)

    return run


def verdicts(shown: Any) -> dict[str, str]:
    """The verdict of each check."""
    return {finding["check"]: finding["verdict"] for finding in shown.json}


def told(shown: Any, check: str) -> tuple[str, str]:
    """Message and remedy of a check."""
    (finding,) = (each for each in shown.json if each["check"] == check)
    return finding["message"], finding["remedy"] or ""


def test_all_is_well(check: Any) -> None:
    """Every check is there, in order; what nobody can know without creating a run is not called ok."""
    shown = check(flow=FILES)
    assert [*OF_THE_CREDENTIAL, *OF_THE_FLOW, *AT_THE_END] == [finding["check"] for finding in shown.json]
    assert {"creating": "not checked"} == {name: word for name, word in verdicts(shown).items() if word != "ok"}
    assert 0 == shown.status


def test_without_a_dataflow(check: Any) -> None:
    """The connection alone."""
    shown = check()
    assert [*OF_THE_CREDENTIAL, *AT_THE_END] == list(verdicts(shown))
    assert 0 == shown.status


def test_nothing_is_created(check: Any, emulator: Any) -> None:
    """A doctor looks and does not touch."""
    check(flow=TABLE)
    assert [] == [kind for kind in emulator.ledger()["requests"] if kind.startswith("POST") and "token" not in kind]


def test_one_plain_line_for_each_check(connect: Any, command: Any) -> None:
    """Outside of a terminal: verdict, check, message and remedy, neither folded nor coloured."""
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
def test_what_is_wrong_with_a_credential(case: str, check: Any) -> None:
    """One check is wrong and says what to do; those behind it are not checked, and none of them is called ok."""
    values, name, parts, unchecked = WRONG[case]
    shown = check(flow=TABLE, **values)
    found = verdicts(shown)
    assert [name] == [check for check, word in found.items() if word == "wrong"]
    assert [] == [part for part in parts if part not in ". ".join(told(shown, name))]
    assert {"not checked"} == {found[check] for check in [*unchecked, *OF_THE_FLOW, "creating"]}
    assert 1 == shown.status


def test_a_ready_token_that_is_valid(check: Any, emulator: Any) -> None:
    """Only Flow Service can tell, so it is told after it was asked."""
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
    assert "not renewed" in told(shown, "token")[0]
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
            ["Log in", "a proxy or a wrong host answers like this"],
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
def test_what_is_answered(fault: dict[str, Any], name: str, parts: list[str], check: Any, emulator: Any) -> None:
    """Each answer is told where it belongs."""
    emulator.plan_fault(**fault)
    shown = check(extra={"scopes": f"openid,{name}"})  # tokens are shared in a process, by their scopes among others
    assert [name] == [check for check, word in verdicts(shown).items() if word == "wrong"]
    assert [] == [part for part in parts if part not in ". ".join(told(shown, name))]
    assert 1 == shown.status


def test_dataflows_that_cannot_be_listed_may_be_readable(check: Any, emulator: Any) -> None:
    """After a refusal of the list, the dataflow itself is still looked at."""
    emulator.plan_fault(kind="GET /flows", action="refuse", status=403, code="2120", message="You may not")
    found = verdicts(check(flow=FILES))
    assert ("wrong", "ok", "ok") == (found["reading"], found["dataflow"], found["schedule"])


def test_a_token_that_flow_service_refuses(check: Any, emulator: Any) -> None:
    """IMS gave it, so the client secret is not what is wrong."""
    emulator.plan_fault(kind="*", action="refuse", status=401, body={"error_code": "401013", "message": "not valid"})
    shown = check()
    assert ("ok", "wrong") == (verdicts(shown)["token"], verdicts(shown)["reading"])
    assert "IMS gave this token, and Flow Service refuses it" in told(shown, "reading")[1]


@pytest.mark.parametrize(
    ("flow", "name", "verdict", "parts"),
    [
        (UNKNOWN, "dataflow", "wrong", [UNKNOWN, "check flow_id"]),
        ("a/b", "dataflow", "wrong", ["flow_id is not an identifier"]),
        (DISABLED, "state", "wrong", ["is disabled", "enable the dataflow in Experience Platform"]),
        (HOURLY, "schedule", "wrong", ["'hour', not 'once'", "use a batch dataflow that is scheduled one-time"]),
        (HOURLY, "delta column", "ok", ["'updated_at' is set"]),
        (TABLE, "delta column", "note", ["the first run has to name it", "set delta_column of the operator"]),
        (FILES, "delta column", "ok", ["not needed"]),
        (FILES, "newest run", "ok", ["has none yet"]),
    ],
)
def test_what_is_told_of_a_dataflow(flow: str, name: str, verdict: str, parts: list[str], check: Any) -> None:
    """Whether it takes on-demand runs, and which parameters they need."""
    shown = check(flow=flow)
    assert verdict == verdicts(shown)[name]
    assert [] == [part for part in parts if part not in ". ".join(told(shown, name))]
    assert int("wrong" in verdicts(shown).values()) == shown.status


def test_a_flow_specification_that_cannot_be_read(check: Any, emulator: Any) -> None:
    """Nobody can tell then whether a delta column is needed; nothing is wrong for that."""
    emulator.plan_fault(kind="GET /flowSpecs/{id}", action="refuse", status=404)
    shown = check(flow=TABLE)
    assert ("not checked", 0) == (verdicts(shown)["delta column"], shown.status)


def test_the_newest_run(check: Any, connect: Any, emulator: Any) -> None:
    """A failed one is worth a look; that this client id made it speaks for its permission, and proves nothing."""
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
    assert "is failed, created" in told(shown, "newest run")[0]
    assert "CONNECTOR-1001-500: no disk" in told(shown, "newest run")[0]
    assert "it did create the newest one" in told(shown, "creating")[0]


@pytest.mark.parametrize(("offset", "words"), [(-300, "ahead of"), (300, "behind")])
def test_a_clock_that_is_wrong(offset: int, words: str, connect: Any, command: Any) -> None:
    """By the service's `Date` header; beyond a minute it is told, with the direction."""
    with running_emulator(Settings(clock_offset_s=offset)) as skewed:
        conn_id = connect(host=skewed.url, extra={"ims_url": skewed.url})
        shown = command("check", "--conn-id", conn_id, "--json")
    message, remedy = told(shown, "clock")
    assert ("wrong", 1) == (verdicts(shown)["clock"], shown.status)
    assert f"s {words} the service's" in message
    assert abs(offset) == pytest.approx(int(message.split(" is ")[1].split()[0]), abs=5)
    assert "by NTP" in remedy


def test_a_clock_that_is_a_little_off(connect: Any, command: Any) -> None:
    """Up to a minute is the tolerance."""
    with running_emulator(Settings(clock_offset_s=45)) as skewed:
        conn_id = connect(host=skewed.url, extra={"ims_url": skewed.url})
        assert "ok" == verdicts(command("check", "--conn-id", conn_id, "--json"))["clock"]


def test_all_wrong_settings_are_told_at_once(check: Any) -> None:
    """And IMS is asked nevertheless, since what is wrong does not concern it."""
    shown = check(
        host="http://platform.adobe.io",
        extra={"org_id": "1234", "epoch_format": "iso", "timeout_s": "soon", "sandbox": "", "orgid": "x"},
    )
    wrong = [finding for finding in shown.json if finding["verdict"] == "wrong"]
    assert ["settings"] * 4 == [finding["check"] for finding in wrong]
    for part in ("use https://", "org_id is '1234'", "epoch_format must be", "timeout_s is 'soon'"):
        assert 1 == sum(part in finding["message"] for finding in wrong), part
    assert all(finding["remedy"] for finding in wrong)
    assert "extra has orgid" in next(finding["message"] for finding in shown.json if finding["verdict"] == "note")
    found = verdicts(shown)
    assert ("ok", "not checked", "not checked") == (found["token"], found["service"], found["clock"])


@pytest.mark.parametrize("name", ["epoch_format", "timeout_s", "max_attempts"])
def test_a_setting_that_has_a_default_stops_nothing(name: str, check: Any) -> None:
    """The rest is checked with the default."""
    found = verdicts(check(extra={name: "nonsense"}, flow=FILES))
    assert ("wrong", "ok", "ok") == (found["settings"], found["reading"], found["schedule"])


def test_neither_secret_nor_token(check: Any) -> None:
    """Nobody can be asked then."""
    shown = check(password=None)
    assert ("wrong", "not checked", 1) == (verdicts(shown)["settings"], verdicts(shown)["token"], shown.status)
    assert "neither client_secret nor access_token is set" in told(shown, "settings")[0]


def test_a_connection_of_another_type(check: Any) -> None:
    """It works, and its form has other fields."""
    shown = check(conn_type="http")
    assert ("note", 0) == (verdicts(shown)["connection"], shown.status)


@pytest.mark.usefixtures("airflow_db")
def test_a_connection_that_does_not_exist(command: Any) -> None:
    """A line as the others, and exit status 1."""
    shown = command("check", "--conn-id", "nowhere", "--json")
    assert ({"connection": "wrong"}, 1) == (verdicts(shown), shown.status)
    assert "'nowhere' does not exist" in told(shown, "connection")[0]
    assert "airflow connections add nowhere" in told(shown, "connection")[1]


def test_a_connection_that_cannot_be_read(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told from one that does not exist, and its text, which may hold the secret, is not shown."""
    monkeypatch.setenv("AIRFLOW_CONN_BROKEN", "flowservice://client:q9x7/cret@127.0.0.1")
    shown = command("check", "--conn-id", "broken")
    assert 1 == shown.status
    assert "cannot be read by EnvironmentVariablesBackend" in shown.out
    assert "q9x7" not in shown.out + shown.err


def test_usage(command: Any) -> None:
    """Exit status 2 is for arguments that cannot be read."""
    assert 2 == command("check", "--flow").status


@pytest.mark.parametrize("values", [{}, {"password": "an-unmistakable-secret"}, {"host": NOWHERE}])
def test_nothing_secret_is_shown(values: dict[str, Any], connect: Any, command: Any, emulator: Any) -> None:
    """Neither secret nor token, on either stream, in either form; also when a proxy repeats them."""
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


class TestProcesses:
    """As people type it, with a connection in the metadata database."""

    @pytest.fixture
    def run(self, airflow_db: Path) -> Any:
        """Runs a command."""

        def run(*arguments: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [sys.executable, "-m", *arguments],
                env=os.environ.copy(),
                capture_output=True,
                text=True,
                timeout=180,
                check=False,
            )

        return run

    def test_a_connection_in_the_database(self, run: Any, emulator: Any) -> None:
        """`airflow flowservice check` and `python -m airflow_flowservice check` read it."""
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
