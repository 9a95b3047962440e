"""Every command in the documentation is accounted for: what it names exists and takes its arguments.

Some are run as well: `integration/cli/test_documented.py`, `e2e/test_getting_started.py`, `e2e/test_demo.py`.
"""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import metadata, requires
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import pytest
from pages import PAGES, ROOT, commands

from airflow_flowservice import __main__
from airflow_flowservice._airflow import versions
from airflow_flowservice.emulator import __main__ as emulator

OURS = "airflow-flowservice"


def _airflows(words: list[str]) -> None:
    """Airflow's command line takes it, with ours in it; a conf is JSON."""
    from airflow.cli.cli_parser import get_parser

    if words[1] == "flowservice" and versions.version() < (3, 2):
        _ours(["python", "-m", "airflow_flowservice", *words[2:]])
        return
    options = get_parser().parse_args(words[1:])
    assert callable(options.func)
    if conf := getattr(options, "conf", None):
        assert isinstance(json.loads(conf), dict)


def _ours(words: list[str]) -> None:
    assert callable(__main__._parser().parse_args(words[3:]).func)


def _emulators(words: list[str]) -> None:
    emulator._parser().parse_args(words[3:])


def _demos(words: list[str]) -> None:
    assert find_spec("airflow_flowservice.demo.__main__")
    _takes([sys.executable, "-m", "airflow_flowservice.demo"], words[3:])


def _venvs(words: list[str]) -> None:
    assert find_spec("venv")
    assert [".venv"] == words[3:]


def _pips(words: list[str]) -> None:
    """The files are there, the extras are ours, and anything else is what we need ourselves."""
    extras = set(metadata(OURS).get_all("Provides-Extra") or [])
    needed = {re.split(r"[^\w-]", requirement)[0].lower() for requirement in requires(OURS) or []}
    assert "install" == words[1]
    rest = iter(words[2:])
    for word in rest:
        if word == "-c":
            assert (ROOT / next(rest)).is_file()
        elif word != "-e":
            name, named = re.fullmatch(r"([\w.-]+?)(?:\[([\w,]+)\])?", word).groups()
            assert name in {".", OURS} or name in needed
            assert set(named.split(",") if named else ()) <= (extras if name in {".", OURS} else set())


def _pytests(words: list[str]) -> None:
    """The paths exist, and a test reads the variables before the command."""
    assert [] == [word for word in words[1:] if not word.startswith("-") and not (ROOT / word).exists()]


def _scripts(words: list[str]) -> None:
    _takes([sys.executable, str(ROOT / words[1])], words[2:])


def _takes(command: list[str], arguments: list[str]) -> None:
    """It tells of its options, and these are among them."""
    told = subprocess.run([*command, "--help"], capture_output=True, text=True, timeout=60)
    assert 0 == told.returncode, told.stderr
    options = {word.partition("=")[0] for word in arguments if word.startswith("-")}
    assert options <= set(re.findall(r"--?[\w-]+", told.stdout))


def _noxes(words: list[str]) -> None:
    functions = [
        node for node in ast.parse((ROOT / "noxfile.py").read_text()).body if isinstance(node, ast.FunctionDef)
    ]
    sessions = {each.name for each in functions if "nox.session" in map(ast.unparse, each.decorator_list)}
    named = [after for word, after in pairwise(words) if word in ("-s", "--session")]
    assert sessions
    assert {name.partition("(")[0] for name in named} <= sessions


def _exports(words: list[str]) -> None:
    """A connection that the hook can use."""
    from airflow.sdk import Connection

    from airflow_flowservice.hooks import client_of

    name, _, value = words[1].partition("=")
    assert re.fullmatch("AIRFLOW_CONN_[A-Z_]+", name)
    fields = json.loads(value)
    connection = Connection(conn_id="documented", **{**fields, "extra": json.dumps(fields["extra"])})
    assert "flowservice" == connection.conn_type
    assert client_of(connection).org_id.endswith("@AdobeOrg")


ACCOUNTS: dict[str, Callable[[list[str]], None]] = {
    "airflow": _airflows,
    "export": _exports,
    "nox": _noxes,
    "pip": _pips,
    "pytest": _pytests,
    "python -m airflow_flowservice": _ours,
    "python -m airflow_flowservice.demo": _demos,
    "python -m airflow_flowservice.emulator": _emulators,
    "python -m venv": _venvs,
    "python benchmarks": _scripts,
}


def account(words: list[str]) -> None:
    """Look at a command with whatever knows it; fails for one that nobody knows."""
    variables = [word for word in words if re.fullmatch(r"FLOWSERVICE_\w+=\w+", word)]
    tests = "".join(file.read_text() for file in (ROOT / "tests").rglob("*.py"))
    assert [] == [name for name in variables if f'"{name.partition("=")[0]}"' not in tests]
    words = words[len(variables) :]
    name = re.sub(r"^python3$", "python", words[0].removeprefix(".venv/bin/"))
    if name == "python":
        name += f" -m {words[2]}" if words[1] == "-m" else f" {Path(words[1]).parent}"
    assert name in ACCOUNTS, f"nobody accounts for: {shlex.join(words)}"
    ACCOUNTS[name](words)


ALL = [(page, shlex.join(words)) for page in PAGES for words in commands(page)]


@pytest.mark.parametrize(("page", "command"), ALL)
def test_every_command_is_accounted_for(page: str, command: str) -> None:
    """Whoever copies it from the page gets further."""
    account(shlex.split(command))


def test_there_are_commands() -> None:
    """The test above has something to try: each way of accounting, save those for what is not in a block today."""
    found = [command.replace(".venv/bin/", "").replace("python3", "python") for _, command in ALL]
    assert {"nox", "python -m airflow_flowservice"} >= {
        known for known in ACCOUNTS if not any(f"{each} ".startswith((f"{known} ", f"{known}/")) for each in found)
    }
    words = {" ".join(each.split()[1:3]) for each in found if each.startswith("airflow ")}
    assert {"flowservice windows", "flowservice check", "flowservice coverage", "backfill create"} <= words


@pytest.mark.parametrize(
    "command",
    [
        "curl https://example.com",
        "airflow dags trigger ingest_orders --nope",
        "airflow flowservice windows",
        "python -m airflow_flowservice nope",
        "python -m airflow_flowservice.emulator --nope",
        "python -m airflow_flowservice.demo --nope",
        "python benchmarks/nope.py",
        "python benchmarks/windows.py --nope 3",
        "pip install -c nowhere.txt airflow-flowservice",
        "pip install 'airflow-flowservice[nope]'",
        "pip install left-pad",
        ".venv/bin/pytest tests/nope",
        "FLOWSERVICE_NOPE=1 pytest tests/unit",
        "nox -s nope",
        'export AIRFLOW_CONN_X=\'{"conn_type": "flowservice"}\'',
        "export AIRFLOW_CONN_X='{'",
    ],
)
def test_a_wrong_command_is_found(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each account can fail."""
    with pytest.raises((Exception, SystemExit)):
        account(shlex.split(command))


@pytest.mark.parametrize("page", PAGES)
def test_every_block_says_what_it_is(page: str) -> None:
    """A block of another language, or of none, would be run by nobody; `text` is what somebody else prints."""
    opened = re.findall(r"^ *```(.*)$", PAGES[page], flags=re.M)[::2]
    assert set(opened) <= {"python", "shell", "text"}
