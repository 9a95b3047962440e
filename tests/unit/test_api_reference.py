# SPDX-License-Identifier: Apache-2.0
"""The API reference has every public class, and public docstrings refer to nothing private."""

from __future__ import annotations

import importlib
import inspect
import re
from typing import Any

import pytest
from pages import PAGES

LISTED = re.findall(r"^::: (\S+)$", PAGES["docs/api-reference.md"], flags=re.M)
MODULES = ("operators", "sensors", "triggers", "hooks", "links", "freshness", "watchers", "alerts")


def public_object(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def docstrings(found: Any) -> list[str]:
    """Return the docstrings of an object and of its public members, as the page shows them."""
    texts = [inspect.getdoc(found) or ""]
    if inspect.isclass(found):
        members = [each for name, each in vars(found).items() if not name.startswith("_")]
        texts += [
            inspect.getdoc(each) or "" for each in members if inspect.isroutine(each) or isinstance(each, property)
        ]
    return texts


def test_each_public_class_is_listed() -> None:
    """The page lists the classes that these modules define and whose names are public."""
    defined = {
        f"airflow_flowservice.{module}.{name}"
        for module in MODULES
        for name, each in vars(importlib.import_module(f"airflow_flowservice.{module}")).items()
        if inspect.isclass(each) and each.__module__ == f"airflow_flowservice.{module}" and not name.startswith("_")
    }
    assert set() == defined - set(LISTED)


@pytest.mark.parametrize("path", LISTED)
def test_docstrings_refer_to_nothing_private(path: str) -> None:
    """A reader cannot look up a name that begins with an underscore, or a class that no page describes."""
    text = "\n".join(docstrings(public_object(path)))
    assert text.strip()
    assert [] == re.findall(r"`(?:\w+\.)*_[a-z]\w*|\b_airflow\b|FlowRunSummary|plain_text", text)
