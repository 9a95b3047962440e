# SPDX-License-Identifier: Apache-2.0
"""Check that each source file begins with its licence: `python .ci/license_headers.py [--add]`.

It prints each file without the header and exits with 1 if there is any. With `--add`, it adds the missing headers.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = (".ci", "airflow_flowservice", "benchmarks", "dags_examples", "tests")
FILES = ("noxfile.py",)
LICENSE = "SPDX-License-Identifier: Apache-2.0"
HEADERS = {".py": f"# {LICENSE}", ".js": f"// {LICENSE}", ".css": f"/* {LICENSE} */"}


def main(arguments: list[str], *, root: Path = ROOT) -> int:
    """Check the files below a folder, or add headers; return the exit status."""
    if arguments not in ([], ["--add"]):
        print(__doc__, file=sys.stderr)
        return 2
    missing = [file for file in source_files(root) if not has_header(file)]
    for file in missing:
        if arguments:
            add_header(file)
        print(f"{file.relative_to(root)}: {'added the header' if arguments else 'no licence header'}")
    if not missing:
        print("Each source file has its licence header.")
    return 1 if missing and not arguments else 0


def source_files(root: Path) -> Iterator[Path]:
    """Yield the files that need a header."""
    for folder in FOLDERS:
        yield from sorted(file for file in (root / folder).rglob("*") if file.suffix in HEADERS)
    yield from (root / name for name in FILES if (root / name).exists())


def has_header(file: Path) -> bool:
    """Return whether the licence is in the first line, or in the second one after `#!`."""
    lines = file.read_text(encoding="utf-8").splitlines()
    first = lines[1:2] if lines and lines[0].startswith("#!") else lines[:1]
    # An empty file has nothing to license.
    return not lines or first == [HEADERS[file.suffix]]


def add_header(file: Path) -> None:
    """Add the header to a file that has none."""
    text = file.read_text(encoding="utf-8")
    interpreter, rest = "", text
    if text.startswith("#!"):
        interpreter, _, rest = text.partition("\n")
        interpreter += "\n"
    file.write_text(f"{interpreter}{HEADERS[file.suffix]}\n{rest}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
