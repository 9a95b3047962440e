# SPDX-License-Identifier: Apache-2.0
"""The layout rules of CONTRIBUTING.md hold for every module of the package."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import airflow_flowservice

PACKAGE = Path(airflow_flowservice.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
# The emulator and the demo share no names with users' code, and each command has its own `main`.
PRODUCT = [file for file in MODULES if file.relative_to(PACKAGE).parts[0] not in ("emulator", "demo", "dags_examples")]
NAMED = [file for file in PRODUCT if not file.name.startswith("__")]
MOST_LINES = 500
LICENSE = "# SPDX-License-Identifier"
MOST_LINES_OF_A_FUNCTION = 40


def test_no_file_has_more_than_500_lines() -> None:
    """A file is one concept. The licence in its first line does not count."""
    lines = {file: [line for line in file.read_text().splitlines() if LICENSE not in line] for file in MODULES}
    assert [] == [file for file in MODULES if len(lines[file]) > MOST_LINES]


def test_no_function_has_more_than_40_lines() -> None:
    """Docstrings do not count."""
    long = [
        f"{file.relative_to(PACKAGE)}:{function.lineno} {function.name}"
        for file in MODULES
        for function in _functions(file)
        if _code_lines(function) > MOST_LINES_OF_A_FUNCTION
    ]
    assert [] == long


def test_no_two_modules_have_the_same_name() -> None:
    """A name in a traceback or a conversation means one module."""
    found = defaultdict(list)
    for file in NAMED:
        found[file.stem.lstrip("_")].append(file.relative_to(PACKAGE).as_posix())
    assert {} == {name: files for name, files in found.items() if len(files) > 1}


def test_no_two_modules_define_the_same_public_name() -> None:
    """A public class or function has one meaning in the whole package."""
    found = defaultdict(set)
    for file in NAMED:
        for node in ast.parse(file.read_text()).body:
            is_named = isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            if is_named and not node.name.startswith("_"):
                found[node.name].add(file.relative_to(PACKAGE).as_posix())
    assert {} == {name: files for name, files in found.items() if len(files) > 1}


def test_no_module_imports_itself_through_others() -> None:
    """This includes imports within functions, and those for types."""
    names = {file: _module_name(file).removesuffix(".__init__") for file in MODULES}
    graph = {name: {*_imports(file)} - {name} for file, name in names.items()}
    assert "airflow_flowservice.exceptions" in TopologicalSorter(graph).static_order()


def test_only_its_own_folder_imports_a_private_module() -> None:
    """An underscore means private to the folder; `_airflow` is private to the package."""
    foreign = [
        f"{file.relative_to(PACKAGE)} imports {module}"
        for file in MODULES
        for module in _imports(file)
        for private in [_private_part(module)]
        if private and not _module_name(file).startswith(private.rpartition(".")[0])
    ]
    assert [] == foreign


def test_there_are_private_modules_to_check() -> None:
    """The rule above compares something."""
    assert "airflow_flowservice._airflow" in {_private_part(module) for file in MODULES for module in _imports(file)}


def _functions(file: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def _code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    docstring = ast.get_docstring(function, clean=False) or ""
    return (function.end_lineno or function.lineno) - function.lineno + 1 - docstring.count("\n")


def _imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("airflow_flowservice"):
            yield from (f"{node.module}.{alias.name}" for alias in node.names if (_is_module(node.module, alias.name)))
            yield node.module


def _is_module(package: str, name: str) -> bool:
    folder = PACKAGE.joinpath(*package.split(".")[1:])
    return (folder / f"{name}.py").is_file() or (folder / name).is_dir()


def _private_part(module: str) -> str | None:
    """Return the dotted name up to its first private part, or None if it has none."""
    parts = module.split(".")
    for index, part in enumerate(parts):
        if part.startswith("_") and not part.startswith("__"):
            return ".".join(parts[: index + 1])
    return None


def _module_name(file: Path) -> str:
    return ".".join(["airflow_flowservice", *file.relative_to(PACKAGE).with_suffix("").parts])
