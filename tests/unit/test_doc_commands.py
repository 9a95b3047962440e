# SPDX-License-Identifier: Apache-2.0
"""Verify that each command in the documentation exists and accepts its arguments.

Other tests also run some of them: `integration/cli/test_documented.py`, `e2e/test_getting_started.py`,
`e2e/test_demo.py`.
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
from pages import PAGES, ROOT, commands, steps

from airflow_flowservice import __main__
from airflow_flowservice._airflow import versions
from airflow_flowservice.emulator import __main__ as emulator

PACKAGE = "airflow-flowservice"


def _check_airflow(words: list[str]) -> None:
    """Verify that Airflow's command line, with the provider's commands, accepts it, and that its JSON is usable."""
    from airflow.cli.cli_parser import get_parser

    if words[1] == "flowservice" and versions.version() < (3, 2):
        _check_flowservice(["python", "-m", "airflow_flowservice", *words[2:]])
        return
    options = get_parser().parse_args(words[1:])
    assert callable(options.func)
    if conf := getattr(options, "conf", None):
        assert isinstance(json.loads(conf), dict)
    if connection := getattr(options, "conn_json", None):
        _check_connection(connection)


def _check_flowservice(words: list[str]) -> None:
    assert callable(__main__._parser().parse_args(words[3:]).func)


def _check_emulator(words: list[str]) -> None:
    emulator._parser().parse_args(words[3:])


def _check_demo(words: list[str]) -> None:
    assert find_spec("airflow_flowservice.demo.__main__")
    _require_options([sys.executable, "-m", "airflow_flowservice.demo"], words[3:])


def _check_venv(words: list[str]) -> None:
    assert find_spec("venv")
    assert [".venv"] == words[3:]


def _check_source(words: list[str]) -> None:
    assert [".venv/bin/activate"] == words[1:]


def _check_pip(words: list[str]) -> None:
    """Verify that files and extras exist, and that other packages are requirements of this package."""
    if words[1] == "uninstall":
        assert [PACKAGE] == words[2:]
        return
    extras = set(metadata(PACKAGE).get_all("Provides-Extra") or [])
    needed = {re.split(r"[^\w-]", requirement)[0].lower() for requirement in requires(PACKAGE) or []}
    assert "install" == words[1]
    rest = iter(words[2:])
    for word in rest:
        if word in ("-c", "-r"):
            assert (ROOT / next(rest)).is_file()
        elif word not in ("-e", "--upgrade", "./airflow_flowservice-*.whl"):
            name, named = re.fullmatch(r"([\w.-]+?)(?:\[([\w,]+)\])?", word).groups()
            assert name in {".", PACKAGE} or name in needed
            assert set(named.split(",") if named else ()) <= (extras if name in {".", PACKAGE} else set())


def _check_pytest(words: list[str]) -> None:
    """Verify that the paths exist."""
    assert [] == [word for word in words[1:] if not word.startswith("-") and not (ROOT / word).exists()]


def _check_script(words: list[str]) -> None:
    _require_options([sys.executable, str(ROOT / words[1])], words[2:])


def _require_options(command: list[str], arguments: list[str]) -> None:
    """Verify that `--help` lists the options."""
    shown = subprocess.run([*command, "--help"], capture_output=True, text=True, timeout=60)
    assert 0 == shown.returncode, shown.stderr
    options = {word.partition("=")[0] for word in arguments if word.startswith("-")}
    assert options <= set(re.findall(r"--?[\w-]+", shown.stdout))


def _check_nox(words: list[str]) -> None:
    functions = [
        node for node in ast.parse((ROOT / "noxfile.py").read_text()).body if isinstance(node, ast.FunctionDef)
    ]
    sessions = {
        each.name
        for each in functions
        if any(ast.unparse(decorator).startswith("nox.session") for decorator in each.decorator_list)
    }
    named = [after for word, after in pairwise(words) if word in ("-s", "--session")]
    assert sessions
    assert {name.partition("(")[0] for name in named} <= sessions


def _check_mike(words: list[str]) -> None:
    """Verify that the configuration file exists, and that the extra `dev` installs the command."""
    assert words[1] in ("deploy", "set-default", "serve")
    assert (ROOT / words[words.index("-F") + 1]).is_file()
    assert '"mike>=' in (ROOT / "pyproject.toml").read_text()


def _check_git(words: list[str]) -> None:
    """Verify that the command is about the branch of the site; without a repository, it cannot be run."""
    assert (["origin"], "gh-pages") == (words[2:3], words[3].partition(":")[0])
    assert words[1] in ("fetch", "push")


def _check_export(words: list[str]) -> None:
    """Verify that Airflow or `requests` reads the variable, or that the hook can use the connection."""
    from airflow.configuration import conf

    name, _, value = words[1].partition("=")
    if name in REQUESTS_VARIABLES:
        assert value
        return
    if option := re.fullmatch("AIRFLOW__([A-Z_]+?)__([A-Z_]+)", name):
        assert conf.has_option(option[1].lower(), option[2].lower())
        return
    assert re.fullmatch("AIRFLOW_CONN_[A-Z_]+", name)
    _check_connection(value)


def _check_connection(value: str) -> None:
    """Verify that the hook can use a connection in JSON."""
    from airflow.sdk import Connection

    from airflow_flowservice.hooks import client_of

    fields = json.loads(value)
    connection = Connection(conn_id="documented", **{**fields, "extra": json.dumps(fields["extra"])})
    assert "flowservice" == connection.conn_type
    assert client_of(connection).org_id.endswith("@AdobeOrg")


# Environment variables of `requests`.
REQUESTS_VARIABLES = ("HTTPS_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE")

CHECKS: dict[str, Callable[[list[str]], None]] = {
    "airflow": _check_airflow,
    "export": _check_export,
    "git": _check_git,
    "mike": _check_mike,
    "nox": _check_nox,
    "pip": _check_pip,
    "pytest": _check_pytest,
    "python -m airflow_flowservice": _check_flowservice,
    "python -m airflow_flowservice.demo": _check_demo,
    "python -m airflow_flowservice.emulator": _check_emulator,
    "python -m venv": _check_venv,
    "python benchmarks": _check_script,
    "source": _check_source,
}


def check(words: list[str]) -> None:
    """Check a command and the environment variables before it; fail for an unknown command.

    A test must read each of the variables.
    """
    variables = [word for word in words if re.fullmatch(r"FLOWSERVICE_\w+=\w+", word)]
    tests = "".join(file.read_text() for file in (ROOT / "tests").rglob("*.py"))
    assert [] == [name for name in variables if f'"{name.partition("=")[0]}"' not in tests]
    words = words[len(variables) :]
    name = re.sub(r"^python3$", "python", words[0].removeprefix(".venv/bin/"))
    if name == "python":
        name += f" -m {words[2]}" if words[1] == "-m" else f" {Path(words[1]).parent}"
    assert name in CHECKS, f"unknown command: {shlex.join(words)}"
    CHECKS[name](words)


ALL = [(page, shlex.join(words)) for page in PAGES for words in commands(page)]


@pytest.mark.parametrize(("page", "command"), ALL)
def test_every_command_is_valid(page: str, command: str) -> None:
    check(shlex.split(command))


def test_there_are_commands() -> None:
    """The pages have commands of each kind, except of two kinds that are in no block at present."""
    found = [command.replace(".venv/bin/", "").replace("python3", "python") for _, command in ALL]
    assert {"nox", "python -m airflow_flowservice"} >= {
        known for known in CHECKS if not any(f"{each} ".startswith((f"{known} ", f"{known}/")) for each in found)
    }
    words = {" ".join(each.split()[1:3]) for each in found if each.startswith("airflow ")}
    assert {
        "flowservice windows",
        "flowservice check",
        "flowservice coverage",
        "flowservice failed-records",
        "backfill create",
    } <= words


@pytest.mark.parametrize(
    "command",
    [
        "curl https://example.com",
        "airflow dags trigger ingest_orders --nope",
        "airflow flowservice fill",
        "python -m airflow_flowservice nope",
        "python -m airflow_flowservice.emulator --nope",
        "python -m airflow_flowservice.demo --nope",
        "python benchmarks/nope.py",
        "python benchmarks/windows.py --nope 3",
        "python benchmarks/messages.py --nope",
        "pip install -c nowhere.txt airflow-flowservice",
        "pip install -r nowhere.txt",
        "pip install 'airflow-flowservice[nope]'",
        "pip install left-pad",
        ".venv/bin/pytest tests/nope",
        "FLOWSERVICE_NOPE=1 pytest tests/unit",
        "nox -s nope",
        'export AIRFLOW_CONN_X=\'{"conn_type": "flowservice"}\'',
        "export AIRFLOW_CONN_X='{'",
        "export AIRFLOW__CORE__NOPE=1",
        "source elsewhere/bin/activate",
        'airflow connections add x --conn-json \'{"conn_type": "flowservice"}\'',
    ],
)
def test_invalid_command_is_refused(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each check can fail."""
    with pytest.raises((Exception, SystemExit)):
        check(shlex.split(command))


@pytest.mark.parametrize("page", PAGES)
def test_every_block_has_a_known_language(page: str) -> None:
    """Blocks are `python`, `shell` or `text` (output); no test would run a block of another language."""
    opened = re.findall(r"^ *```(.*)$", PAGES[page], flags=re.M)[::2]
    assert set(opened) <= {"python", "shell", "text"}


def test_getting_started_says_what_its_test_follows() -> None:
    """`e2e/test_getting_started.py` finds the DAG's file, the start of Airflow and the repeated command on the page."""
    found = steps("docs/getting-started.md")
    assert ["airflow/dags/ingest_orders.py"] == [step.file for step in found if step.language == "python"]
    assert ["airflow standalone"] == [step.text.splitlines()[-1] for step in found if step.starts_airflow]
    assert ["3 ingested."] == [step.awaited for step in found if step.awaited]
    shell = [step for step in found if step.language == "shell"]
    assert ["each"] == [step.terminal for step in shell if "export " in step.text]
    assert ["second"] == [step.terminal for step in shell if step.starts_airflow]
    assert ["third"] == [step.terminal for step in shell if "flowservice.emulator" in step.text]
