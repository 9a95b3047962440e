"""Reads a DAG from its file, as the DAG processor does, without a database."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_flowservice.cli.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_NAMED_AT_MOST = 20


def read_dag(dag_id: str, *, path: str | None = None, bundle_names: Sequence[str] | None = None) -> Any:
    """The DAG with this id.

    :param path: its file, or a folder; default: the folders of Airflow's DAG bundles.
    :param bundle_names: only these bundles.
    :raises CommandError: there is none.
    """
    os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"  # Airflow's examples would be searched too
    errors: dict[str, str] = {}
    dag_ids: set[str] = set()
    places = []
    for place in [_given(path)] if path else _bundles(bundle_names):
        bag = _read(place)
        if dag_id in bag.dags:
            return bag.dags[dag_id]
        places.append(str(place))
        errors.update(bag.import_errors)
        dag_ids.update(bag.dags)
    raise CommandError(_not_found(dag_id, places=places, errors=errors, dag_ids=dag_ids))


def _given(path: str) -> Path:
    place = Path(path).expanduser().absolute()
    if not place.exists():
        raise CommandError(f"there is no file {place}")
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


def _not_found(dag_id: str, *, places: Iterable[str], errors: dict[str, str], dag_ids: Iterable[str]) -> str:
    where = " or ".join(places) or "any DAG bundle"
    if errors:
        causes = "".join(f"\n  {file}: {error.strip().splitlines()[-1]}" for file, error in sorted(errors.items()))
        return f"there is no DAG {dag_id!r} in {where}; of these files the import failed:{causes}"
    known = sorted(dag_ids)
    if not known:
        return f"there is no DAG in {where}. Give the DAG's file with --dagfile-path"
    more = f" and {len(known) - _NAMED_AT_MOST} more" if len(known) > _NAMED_AT_MOST else ""
    return f"there is no DAG {dag_id!r} in {where}; there are: {', '.join(known[:_NAMED_AT_MOST])}{more}"
