# SPDX-License-Identifier: Apache-2.0
"""Read the documentation's pages, their code blocks, and the commands in the blocks."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).parents[2]
_FILES = (
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "CODE_OF_CONDUCT.md",
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
    return [words for block in blocks(page, "shell") for words in commands_in(block)]


def commands_in(block: str) -> list[list[str]]:
    """Return each simple command of a shell block, as a list of words."""
    return [words for line in _lines(block) for words in _simple(line)]


@dataclass(frozen=True)
class Step:
    """A code block of a page.

    :param before: text between the preceding block and this one, on one line.
    :param after: text between this block and the next one, on one line.
    """

    language: str
    text: str
    before: str
    after: str

    @property
    def file(self) -> str | None:
        """Return the path below the reader's home of the file that the text before the block says to create."""
        found = re.search(r"Create the file `~/([^`]+)`", self.before)
        return found and found[1]

    @property
    def awaited(self) -> str | None:
        """Return the output until which the text after the block says to repeat its command."""
        found = re.search(r"Repeat this command until it prints `([^`]+)`", self.after)
        return found and found[1]

    @property
    def terminal(self) -> str:
        """Return in which terminal the text before the block says to run it: `each` or an ordinal number."""
        if "Run these lines in each of them" in self.before:
            return "each"
        found = re.findall(r"[Ii]n the (first|second|third) terminal", self.before)
        return found[-1] if found else "first"

    @property
    def starts_airflow(self) -> bool:
        """Return whether the text after the block says to wait until Airflow is ready."""
        return "Wait until it prints `Airflow is ready`" in self.after


def steps(page: str) -> list[Step]:
    """Return the code blocks of a page in their order."""
    parts = re.split(r"^```(\w+)\n(.*?)^```$", PAGES[page], flags=re.S | re.M)
    prose = [" ".join(text.split()) for text in parts[::3]]
    return [
        Step(language=language, text=text, before=before, after=after)
        for language, text, (before, after) in zip(parts[1::3], parts[2::3], pairwise(prose), strict=True)
    ]


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
