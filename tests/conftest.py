# SPDX-License-Identifier: Apache-2.0
"""Set up all tests: a separate Airflow home for each process, examples of hypothesis, and parallel workers.

The environment is set before anything imports Airflow, and the home is removed at the end.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

TESTS = Path(__file__).parent
E2E = TESTS / "e2e"
PAGE = TESTS / "integration" / "plugins"
HOME = Path(tempfile.mkdtemp(prefix="airflow-flowservice-tests-"))
# Environment variable of the workers: 1 for the quick selection.
_QUICK = "FLOWSERVICE_QUICK_TESTS"
# Number of cases of a parametrized test that a plain `pytest` runs.
_QUICK_CASES = 2
DAG_FOLDER = TESTS / "integration" / "operators" / "dags"


def _use_separate_airflow() -> None:
    """Set the environment so that the tests neither read nor write the user's Airflow."""
    for name in [name for name in os.environ if name.startswith(("AIRFLOW", "_AIRFLOW"))]:
        del os.environ[name]
    os.environ.update(
        {
            "AIRFLOW_HOME": str(HOME),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_FOLDER": str(DAG_FOLDER),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(HOME / "plugins"),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{HOME / 'airflow.db'}",
            "AIRFLOW__DATABASE__LOAD_DEFAULT_CONNECTIONS": "False",
            # The listener changes how tasks end, so only its tests register it.
            "AIRFLOW__OPENLINEAGE__DISABLED": "True",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            # SHA-512 needs a key of 64 bytes or more; the one that Airflow generates is shorter, of which PyJWT warns.
            "AIRFLOW__API_AUTH__JWT_SECRET": "a-secret-of-the-tests-" * 3,
            # Tests use the same hosts and ids, so only the tests of the cache share anything.
            "AIRFLOW__FLOWSERVICE__TOKEN_CACHE": "none",
            "SCARF_ANALYTICS": "false",
            # On Python 3.14, `airflow` commands log this to stdout before their output (Airflow 3.3.2).
            "PYTHONWARNINGS": "ignore:FileType is deprecated",
        }
    )
    # Without bytecode, each process of Airflow would compile the package.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


_use_separate_airflow()
# This handler is registered first, so it runs last: Airflow's exit handlers still write to the folder.
atexit.register(shutil.rmtree, HOME, ignore_errors=True)


# `pytest` uses "quick"; `pytest --hypothesis-profile=thorough` uses the other one, and so does CI.
# FLOWSERVICE_EXAMPLES=5000 makes "thorough" even larger, with new examples each time.
_REPEATABLE: dict[str, Any] = {
    "derandomize": True,
    "database": None,
    "deadline": None,
    "print_blob": True,
    "suppress_health_check": [HealthCheck.too_slow],
}
settings.register_profile("quick", max_examples=10, **_REPEATABLE)
settings.register_profile(
    "thorough",
    max_examples=int(os.environ.get("FLOWSERVICE_EXAMPLES", "100")),
    **{**_REPEATABLE, "derandomize": "FLOWSERVICE_EXAMPLES" not in os.environ},
)
settings.load_profile("quick")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option of CI, which runs a plain `pytest` before."""
    parser.addoption(
        "--remaining",
        action="store_true",
        help="run only the tests that a plain `pytest` does not run, or runs with fewer examples",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Decide whether this is the quick selection: a plain `pytest`, without paths and without a profile."""
    # The workers of pytest-xdist receive the paths as arguments, so they read the decision here.
    if "PYTEST_XDIST_WORKER" not in os.environ:
        os.environ[_QUICK] = str(int(_is_quick(config)))


def _is_quick(config: pytest.Config) -> bool:
    return _is_plain(config) and not config.getoption("--hypothesis-profile")


def _is_plain(config: pytest.Config) -> bool:
    return config.args_source is pytest.Config.ArgsSource.TESTPATHS


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return the number of processes for `-n auto`: none for a file or a test that is named, at most six for more.

    Many tests wait, so the quick selection uses three processes for each processor.
    """
    if any(".py" in argument for argument in config.args) and config.args_source is pytest.Config.ArgsSource.ARGS:
        return 0
    processors = os.cpu_count() or 1
    return min(3 * processors, 6) if _is_quick(config) else min(processors, 4)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Run the tests of a file in one process, in order, and all end-to-end tests in one: they share an Airflow."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "tests/e2e" if file.startswith("tests/e2e/") else file

    return ByFile(config, log)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> Iterator[None]:
    """State how to run the tests that a plain `pytest` does not run, after the list of skipped tests."""
    yield
    if not _is_plain(config):
        return
    terminalreporter.section("this was the quick selection")
    terminalreporter.write_line("all tests, thoroughly (25 minutes):  pytest --hypothesis-profile=thorough tests")
    terminalreporter.write_line("the same on all supported Airflows:  nox -s e2e   (extra 'dev')")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the end-to-end tests first, since they take longest; omit tests of other Airflows.

    A test that is marked with `needs_airflow` is skipped on earlier Airflows, so that a run shows what is not tested.
    A test that is marked with `before_airflow` is deselected on later ones, since nothing is missing there.
    """
    from airflow_flowservice._airflow import versions

    items.sort(key=_place)
    installed = versions.version()
    _select(config, items, lambda item: all(installed < mark.args for mark in item.iter_markers("before_airflow")))
    quick = _quick_selection(items)
    if os.environ[_QUICK] == "1":
        _select(config, items, lambda item: item in quick)
    if config.getoption("--remaining"):
        # Hypothesis marks its tests, which a plain `pytest` runs with fewer examples.
        _select(config, items, lambda item: item not in quick or item.get_closest_marker("hypothesis") is not None)
    for item in items:
        for mark in item.iter_markers("needs_airflow"):
            major, minor, reason = mark.args
            if installed < (major, minor):
                item.add_marker(pytest.mark.skip(reason=f"needs Airflow {major}.{minor}: {reason}"))


def _select(config: pytest.Config, items: list[pytest.Item], condition: Callable[[pytest.Item], bool]) -> None:
    config.hook.pytest_deselected(items=[item for item in items if not condition(item)])
    items[:] = [item for item in items if condition(item)]


def _quick_selection(items: list[pytest.Item]) -> set[pytest.Item]:
    """Return the tests that a plain `pytest` runs: without slow ones, and some cases of each parametrized test."""
    cases: defaultdict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        is_other_e2e = E2E in item.path.parents and item.path.name != "test_smoke.py"
        if not is_other_e2e and not item.get_closest_marker("slow"):
            cases[item.nodeid.partition("[")[0]].append(item)
    return {each for found in cases.values() for each in _evenly_spaced(found)}


def _evenly_spaced(cases: list[pytest.Item]) -> list[pytest.Item]:
    """Return at most `_QUICK_CASES` of the cases, always the first and the last one."""
    if len(cases) <= _QUICK_CASES:
        return cases
    return [cases[number * (len(cases) - 1) // (_QUICK_CASES - 1)] for number in range(_QUICK_CASES)]


def _place(item: pytest.Item) -> int:
    """Return 0 for an end-to-end test with a separate Airflow, 1 for those that share one, 2 and 3 for other tests.

    The shared Airflow runs from its first test to the end of the session, and would slow down the separate ones.
    The files of the page take longest, so that one of them would be the only one that runs at the end.
    """
    if E2E not in item.path.parents:
        return 2 if PAGE in item.path.parents else 3
    has_own = hasattr(getattr(item, "module", None), "airflow")
    return 1 if "airflow" in getattr(item, "fixturenames", ()) and not has_own else 0


@pytest.fixture(scope="session")
def airflow_home() -> Path:
    """Return the `AIRFLOW_HOME` of the tests."""
    return HOME


@pytest.fixture(scope="session")
def airflow_db(airflow_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the metadata database of this process: a copy of one that was migrated once for all processes."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    template = shared / "airflow-template.db"
    with (shared / "airflow-template.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not template.exists():
            _migrate(template.with_suffix(".partial"))
            template.with_suffix(".partial").rename(template)
    database = airflow_home / "airflow.db"
    _remove_database(database)
    return Path(shutil.copy(template, database))


def _remove_database(database: Path) -> None:
    """Remove the file that Airflow creates if a test reads its database before the tables exist."""
    # SQLite reports a disk I/O error if the file is replaced while a connection or its write-ahead log remains.
    settings = sys.modules.get("airflow.settings")
    if settings is not None and settings.engine is not None:
        settings.Session.remove()
        settings.engine.dispose()
    for suffix in ("", "-wal", "-shm"):
        database.with_name(database.name + suffix).unlink(missing_ok=True)


def _migrate(database: Path) -> None:
    """Create Airflow's tables in a new SQLite file."""
    done = subprocess.run(
        [sys.executable, "-m", "airflow", "db", "migrate"],
        env={**os.environ, "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{database}"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
