"""The documentation as tests see it: its pages, their code blocks, and each command in these."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
_FILES = (
    "README.md",
    "CONTRIBUTING.md",
    "benchmarks/README.md",
    *sorted(f"docs/{f.name}" for f in ROOT.glob("docs/*")),
)

# By the path in the checkout.
PAGES = {name: (ROOT / name).read_text() for name in _FILES if name.endswith(".md")}


def blocks(page: str, language: str) -> list[str]:
    """The code blocks of a language on a page, without what they are indented by."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```$", PAGES[page], flags=re.S | re.M)
    return [re.sub(rf"^{indent}", "", text, flags=re.M) for indent, text in found]


def commands(page: str) -> list[list[str]]:
    """Every simple command in the shell blocks of a page, as words."""
    return [words for block in blocks(page, "shell") for line in _lines(block) for words in _simple(line)]


def _lines(block: str) -> Iterator[str]:
    """Lines that belong together, because of an open quotation mark or a backslash, as one."""
    collected = ""
    for line in block.splitlines():
        collected += line + "\n"
        try:
            shlex.split(collected, comments=True)
        except ValueError:
            continue
        if line.endswith("\\"):
            continue
        yield collected
        collected = ""
    if collected.strip():
        raise ValueError(f"a command does not end: {collected}")


def _simple(line: str) -> Iterator[list[str]]:
    """What stands between `&&`."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;")
    lexer.whitespace_split = True
    words: list[str] = []
    for word in [*lexer, "&&"]:
        if word != "&&":
            words.append(word)
        elif words:
            yield words
            words = []
