# SPDX-License-Identifier: Apache-2.0
"""Read a DAG from its file without a database, as Airflow's DAG processor does."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_flowservice.cli.output import CommandError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_MAX_LISTED = 20


def read_dag(dag_id: str, *, path: str | None = None, bundle_names: Sequence[str] | None = None) -> Any:
    """Return the DAG with this id.

    :param path: file or folder to search; default: the folders of Airflow's DAG bundles.
    :param bundle_names: search only these bundles.
    :raises CommandError: there is no such DAG.
    """
    os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"  # otherwise, Airflow also loads its example DAGs
    errors: dict[str, str] = {}
    dag_ids: set[str] = set()
    searched = []
    for place in [_existing(path)] if path else _bundles(bundle_names):
        bag = _read(place)
        if dag_id in bag.dags:
            return bag.dags[dag_id]
        searched.append(str(place))
        errors.update(bag.import_errors)
        dag_ids.update(bag.dags)
    raise CommandError(_not_found(dag_id, searched=searched, errors=errors, dag_ids=dag_ids))


def _existing(path: str) -> Path:
    place = Path(path).expanduser().absolute()
    if not place.exists():
        raise CommandError(f"the file {place} does not exist")
    return place


def _bundles(names: Sequence[str] | None) -> Iterator[Path]:
    from airflow.dag_processing.bundles import manager

    configured: Any = manager
    try:
        found = configured.DagBundlesManager()
        bundles = [found.get_bundle(name) for name in names] if names else found.get_all_dag_bundles()
        for bundle in bundles:
            bundle.initialize()
            yield Path(bundle.path)
    except Exception as error:
        raise CommandError(
            f"the DAG bundles cannot be read: {str(error).rstrip('.')}. Give the DAG's file with --dagfile-path"
        ) from error


def _read(place: Path) -> Any:
    from airflow_flowservice._airflow import versions

    folder = str(place.parent if place.is_file() else place)
    if folder not in sys.path:
        sys.path.append(folder)
    if place.is_dir():
        return versions.dag_bag(str(place))
    bag: Any = versions.dag_bag(str(place), collect_dags=False)
    bag.process_file(str(place), only_if_updated=False, safe_mode=False)
    return bag


def _not_found(dag_id: str, *, searched: Iterable[str], errors: dict[str, str], dag_ids: Iterable[str]) -> str:
    where = " or ".join(searched) or "any DAG bundle"
    if errors:
        causes = "".join(f"\n  {file}: {error.strip().splitlines()[-1]}" for file, error in sorted(errors.items()))
        return f"there is no DAG {dag_id!r} in {where}; these files cannot be imported:{causes}"
    known = sorted(dag_ids)
    if not known:
        return f"there is no DAG in {where}. Give the DAG's file with --dagfile-path"
    more = f" and {len(known) - _MAX_LISTED} more" if len(known) > _MAX_LISTED else ""
    return f"there is no DAG {dag_id!r} in {where}; it has: {', '.join(known[:_MAX_LISTED])}{more}"
