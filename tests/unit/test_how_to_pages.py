# SPDX-License-Identifier: Apache-2.0
"""Each how-to page is short, and its DAG loads in Airflow without errors and without warnings.

`integration/operators/test_dag_test.py` runs these DAGs.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from airflow_versions import VERSION
from pages import PAGES, blocks

from airflow_flowservice._airflow import versions

HOW_TO = sorted(name for name in PAGES if name.startswith("docs/how-to/"))
WITH_CODE = [name for name in HOW_TO if blocks(name, "python")]
# Pages whose code needs a later Airflow than the oldest one.
SINCE = {
    "docs/how-to/follow-flow-runs.md": (3, 1),
    "docs/how-to/partitions.md": (3, 2),
    "docs/how-to/whole-days.md": (3, 3),
}


def test_there_is_a_page_for_each_task() -> None:
    """Pages with code are about DAGs, the others about an installation."""
    assert 18 <= len(HOW_TO)
    assert 11 <= len(WITH_CODE)


@pytest.mark.parametrize("page", HOW_TO)
def test_page_is_short_and_states_its_task(page: str) -> None:
    """A page has at most 80 lines, a heading in the imperative, and an introduction before its first block."""
    lines = PAGES[page].splitlines()
    assert 80 >= len(lines)
    assert re.match(r"# [A-Z][a-z]+ ", lines[0]) or page.endswith(("/upgrade.md", "/uninstall.md"))
    assert lines[2]
    assert not lines[2].startswith(("#", "```"))


@pytest.mark.parametrize("page", WITH_CODE)
def test_dag_of_the_page_loads(page: str, tmp_path: Path) -> None:
    """Airflow finds exactly the DAGs of the page, and can serialize them."""
    if VERSION < SINCE.get(page, (3, 0)):
        pytest.skip(f"needs Airflow {SINCE[page]}")
    (text,) = blocks(page, "python")
    (tmp_path / f"{Path(page).stem.replace('-', '_')}.py").write_text(text)
    bag = versions.dag_bag(str(tmp_path))
    assert {} == bag.import_errors
    assert set(re.findall(r'dag_id="(\w+)"', text)) == set(bag.dags)


def test_dags_have_different_ids() -> None:
    """The DAGs of all pages can be in one folder."""
    ids = [name for page in WITH_CODE for name in re.findall(r'dag_id="(\w+)"', PAGES[page])]
    assert sorted(set(ids)) == sorted(ids)
