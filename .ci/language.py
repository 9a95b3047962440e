# SPDX-License-Identifier: Apache-2.0
"""Check the project's language: `python .ci/language.py` prints each violation and exits with 1 if there is any.

The rules are those of CONTRIBUTING.md, section "Language". Checked are all tracked Python, JavaScript, HTML, CSS,
Markdown, TOML and shell files.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
THIS_FILE = Path(__file__).resolve()
TEXT_FILES = frozenset({".py", ".js", ".html", ".css", ".md", ".toml", ".yml", ".yaml", ".sh", ""})
LONGEST_MARKDOWN_LINE = 119

# A regular expression for the words to avoid, and the words to use instead.
WORDS = {
    r"nobody|somebody|whoever|whosever": "the actor: the operator, Airflow, Flow Service, you",
    r"in twice|came twice|comes twice": "duplicated",
    r"go(?:es|ing)? on|went on|gone on": "continue, continues",
    r"mend(?:s|ed|ing)?": "fix",
    r"of (?:its|your|their|our|my|his|her|one's) own": "custom, separate, its own",
    r"leads? to|led to": "link to, cause, result in",
    r"(?:is|are|was|were|be|been|being) told": "returns, reports, states",
    r"tells? (?:of|what|whether|which|how|that|it|them|us|him|you)": "return, report, state, show",
    r"once more": "again",
    r"as well": "also",
    r"three in the morning": "on call",
    r"til(?:e|es|ed|ing)": "contiguous (the word 'tile' is defined once, in docs/windows.md)",
    r"would else": "would otherwise",
    r"shall": "must, should",
    r"hears? of|heard of": "receive, know",
    r"all the same": "nevertheless, anyway",
    r"says? so": "report, state, require",
    r"belongs? into": "belongs in",
    r"do(?:es)? not concern": "does not affect",
    r"by no means|in vain|at the very least|for ever": "plain words",
}
WORDS_ALLOWED = {
    # The name of a Unix account.
    "airflow_flowservice/demo/postgres.py": re.compile(r"\bnobody\b"),
    # The definition of the word.
    "docs/windows.md": re.compile(r"\btile\b"),
}
# The docstring of a function begins with a verb, so not with an article, and not with its result.
NO_VERB = re.compile(r"(?:The|An?|True|False|None) ")
NOUN_CLAUSE = re.compile(r"(?:What|Whether|Which|Who|Whose|Where|When|How|That|Those)\b|As `")
# In the docstring of a test, which is a sentence, this may be its subject.
NOUN_WITH_CLAUSE = re.compile(r"(?:The|An?) \w+(?: \w+)? (?:that|which|whose)\b")


def main() -> int:
    """Print all violations; return the exit status."""
    found = [violation for file in tracked_files() for violation in violations_of(file)]
    print("\n".join(found) if found else "The language check found nothing.")
    return 1 if found else 0


def tracked_files() -> list[Path]:
    """Return the text files that git tracks, and those that it does not ignore."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    files = [ROOT / name for name in listed]
    return [file for file in files if file.suffix in TEXT_FILES and file.is_file() and file != THIS_FILE]


def violations_of(file: Path) -> Iterator[str]:
    """Yield `file:line: message` for each violation in a file."""
    name = file.relative_to(ROOT).as_posix()
    if name == "LICENSE":
        return
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return
    yield from words_in(name, text)
    if file.suffix == ".py":
        yield from noun_clauses_in(name, text)
    if file.suffix == ".md":
        yield from long_lines_in(name, text)


def words_in(name: str, text: str) -> Iterator[str]:
    """Yield the words to avoid that a text uses."""
    for pattern, better in _COMPILED.items():
        for match in pattern.finditer(text):
            allowed = WORDS_ALLOWED.get(name)
            if allowed and allowed.search(match[0]):
                continue
            line = text.count("\n", 0, match.start()) + 1
            yield f"{name}:{line}: {' '.join(match[0].split())!r}: use {better}"


def noun_clauses_in(name: str, text: str) -> Iterator[str]:
    """Yield the docstrings that begin with a noun clause instead of a verb."""
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module):
            continue
        docstring = ast.get_docstring(node)
        if not docstring:
            continue
        match = NOUN_CLAUSE.match(docstring)
        if not match and not name.startswith("tests/"):
            match = NOUN_WITH_CLAUSE.match(docstring)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("test_"):
                match = match or NO_VERB.match(docstring)
        if match:
            line = getattr(node, "lineno", 1)
            yield f"{name}:{line}: the docstring begins with {match[0]!r}: begin with a verb (Return, Create, Raise)"


def long_lines_in(name: str, text: str) -> Iterator[str]:
    """Yield the Markdown lines that are too long; code blocks are exempt, since a command must stay on one line."""
    in_code = False
    for number, line in enumerate(text.splitlines(), start=1):
        if line.lstrip().startswith("```"):
            in_code = not in_code
        elif not in_code and len(line) > LONGEST_MARKDOWN_LINE:
            yield f"{name}:{number}: {len(line)} characters: at most {LONGEST_MARKDOWN_LINE}"


_COMPILED = {
    re.compile(r"\b(?:" + words.replace(" ", r"\s+(?:#\s+)?") + r")\b", re.IGNORECASE): better
    for words, better in WORDS.items()
}

if __name__ == "__main__":
    sys.exit(main())
