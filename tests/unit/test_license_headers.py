# SPDX-License-Identifier: Apache-2.0
"""Licence headers are found and added by `.ci/license_headers.py`."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / ".ci" / "license_headers.py"
LICENSE = "SPDX-License-Identifier: Apache-2.0"


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    """Return the names of the script."""
    return runpy.run_path(str(SCRIPT))


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("one.py", '"""One."""\n', f'# {LICENSE}\n"""One."""\n'),
        ("two.py", "#!/usr/bin/env python3\nimport os\n", f"#!/usr/bin/env python3\n# {LICENSE}\nimport os\n"),
        ("page.js", "let one;\n", f"// {LICENSE}\nlet one;\n"),
        ("page.css", "p {}\n", f"/* {LICENSE} */\np {{}}\n"),
        ("__init__.py", "", ""),
        ("data.txt", "text\n", "text\n"),
    ],
)
def test_missing_header_is_added_once(
    script: dict[str, Any], tmp_path: Path, name: str, before: str, after: str
) -> None:
    """The check fails before, and is successful afterwards; a second addition changes nothing."""
    file = tmp_path / "tests" / name
    file.parent.mkdir()
    file.write_text(before)
    assert int(before != after) == script["main"]([], root=tmp_path)
    for _ in range(2):
        assert 0 == script["main"](["--add"], root=tmp_path)
        assert after == file.read_text()
    assert 0 == script["main"]([], root=tmp_path)
