# SPDX-License-Identifier: Apache-2.0
"""Make the links of README.md absolute in the package's description, because an index shows it outside of the checkout.

Hatchling calls `ReadmeHook`. The address of the repository is `Source` in `[project.urls]` of pyproject.toml, and
nowhere else. Without it, the links stay relative, and `python .ci/package_readme.py` exits with status 1: the release
workflow calls it before it publishes.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

try:
    from hatchling.metadata.plugin.interface import MetadataHookInterface
except ImportError:  # in tests: only a build environment has hatchling
    MetadataHookInterface = object

_LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^]]*)\]\((?!https?:|#)(?P<path>[^)\s]+)\)")
_CODE = re.compile(r"^```.*?^```$", flags=re.M | re.S)
_IMAGES = (".png", ".svg")


class ReadmeHook(MetadataHookInterface):  # type: ignore[misc, valid-type]
    """Set the description of the package."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Add the description to the metadata of pyproject.toml."""
        root = Path(self.root)
        text = absolute_links((root / "README.md").read_text(), metadata.get("urls", {}).get("Source"), version(root))
        metadata["readme"] = {"content-type": "text/markdown", "text": text}


def version(root: Path) -> str:
    """Return the version of the package."""
    found = re.search(r'^__version__ = "(.+)"$', (root / "airflow_flowservice/__init__.py").read_text(), flags=re.M)
    if not found:
        raise ValueError("airflow_flowservice/__init__.py has no __version__")
    return found[1]


def absolute_links(text: str, source: str | None, version: str) -> str:
    """Return a Markdown text whose relative links are links to the repository at the tag of a version.

    :param source: address of the repository, in the form of GitHub; without it, the text is not changed.
    """
    if not source:
        return text

    def absolute(link: re.Match[str]) -> str:
        kind = "raw" if link["path"].endswith(_IMAGES) else "blob"
        return f"{link['image']}[{link['text']}]({source.rstrip('/')}/{kind}/v{version}/{link['path']})"

    parts, end = [], 0
    for code in _CODE.finditer(text):
        parts += [_LINK.sub(absolute, text[end : code.start()]), code[0]]
        end = code.end()
    return "".join([*parts, _LINK.sub(absolute, text[end:])])


def relative_links(text: str) -> list[str]:
    """Return the links of a Markdown text that work only in the repository."""
    return [link["path"] for link in _LINK.finditer(_CODE.sub("", text))]


def main() -> int:
    """Return 0 if pyproject.toml has the address of the repository."""
    root = Path(__file__).parents[1]
    if re.search(r'^Source = "https://\S+"$', (root / "pyproject.toml").read_text(), flags=re.M):
        return 0
    print("Set Source in [project.urls] of pyproject.toml: without it, the links of README.md do not work on an index.")
    return 1


if __name__ == "__main__":
    sys.exit(main())
