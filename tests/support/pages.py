"""Read the documentation's pages, their code blocks, and the commands in the blocks."""

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
    *sorted(f.relative_to(ROOT).as_posix() for f in ROOT.glob("docs/**/*.md")),
)

# Texts of the pages by their path in the checkout.
PAGES = {name: (ROOT / name).read_text() for name in _FILES if name.endswith(".md")}


def blocks(page: str, language: str) -> list[str]:
    """Return the code blocks of a language on a page, without their indentation."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```$", PAGES[page], flags=re.S | re.M)
    return [re.sub(rf"^{indent}", "", text, flags=re.M) for indent, text in found]


def commands(page: str) -> list[list[str]]:
    """Return each simple command in the shell blocks of a page, as a list of words."""
    return [words for block in blocks(page, "shell") for line in _lines(block) for words in _simple(line)]


def _lines(block: str) -> Iterator[str]:
    """Yield logical lines: lines with an open quotation mark or a trailing backslash are joined."""
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
    """Yield the commands between `&&`, as lists of words."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;")
    lexer.whitespace_split = True
    words: list[str] = []
    for word in [*lexer, "&&"]:
        if word != "&&":
            words.append(word)
        elif words:
            yield words
            words = []
