# SPDX-License-Identifier: Apache-2.0
"""Represent dataflows as Airflow assets.

An asset's URI is `aep://{sandbox}/dataflows/{flow_id}`. If one Airflow serves several organizations, it is
`aep://{organization}/{sandbox}/dataflows/{flow_id}`. The organization's id is without `@AdobeOrg`, because Airflow 3.0
takes the text before an `@` for a user name, and removes it.

Airflow calls `sanitize_uri` for every asset of this scheme, in every process that parses DAGs. Therefore, this module
has few imports.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import SplitResult, urlsplit

from airflow_flowservice.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Asset, AssetWatcher
    from openlineage.client.event_v2 import Dataset

SCHEME = "aep"
PARTITIONS_KEY = "partitions"
"""Key of an asset's `extra`, and of its events' `extra`: the length of the asset's partitions."""

_FOLDER = "dataflows"
_FLOW_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_SANDBOX = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_ORG_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(@AdobeOrg)?")
_PARTITIONS = ("hour", "day")


def flow_asset(
    flow_id: str,
    *,
    sandbox: str = "prod",
    org_id: str | None = None,
    name: str | None = None,
    extra: dict[str, Any] | None = None,
    watchers: Sequence[AssetWatcher] = (),
    partitions: Literal["hour", "day"] | None = None,
) -> Asset:
    """Return the asset of a dataflow; the same arguments give the same asset in every DAG file.

    If the asset is an outlet of a task of this package, its events contain the window, the flow run and its counts. A
    DAG that is scheduled on the asset uses this window.

    :param flow_id: the dataflow's id, without templates, because Airflow does not render templates in assets.
    :param sandbox: the sandbox's name, as in the connection.
    :param org_id: the organization (`…@AdobeOrg`), if one Airflow serves several organizations.
    :param name: the asset's name in Airflow; default: the URI.
    :param extra: the `extra` of Airflow's `Asset`.
    :param watchers: the `watchers` of Airflow's `Asset`, such as one with a `FlowRunsTrigger`. Each DAG file that uses
        the asset must have the same ones, because Airflow removes those that the last parsed file does not have.
    :param partitions: `hour` or `day`: each whole hour or day (UTC) of an ingested window becomes a partition of the
        asset (Airflow 3.3 and later). Then, only DAGs with a `PartitionedAssetTimetable` start by the asset.
    :raises ConfigurationError: flow_id, sandbox, org_id or partitions is not valid.
    """
    from airflow.sdk import Asset

    if partitions is not None:
        extra = {**(extra or {}), PARTITIONS_KEY: _checked_partitions(partitions)}
    uri = f"{SCHEME}://{_namespace(org_id, sandbox)}/{_FOLDER}/{_checked_flow_id(flow_id)}"
    return Asset(name=uri if name is None else name, uri=uri, extra=extra, watchers=list(watchers))


def sanitize_uri(uri: SplitResult) -> SplitResult:
    """Normalize the URI of a dataflow, and return other URIs of the scheme unchanged. Airflow calls this function.

    :raises ConfigurationError: the URI has the form of a dataflow's URI, but a part of it is not valid.
    """
    found = _parts(uri)
    if found is None:
        return uri
    org_id, sandbox, flow_id = found
    netloc, _, path = f"{_namespace(org_id, sandbox)}/{_FOLDER}/{_checked_flow_id(flow_id)}".partition("/")
    return uri._replace(netloc=netloc, path=f"/{path}", query="", fragment="")


def convert_asset_to_openlineage(asset: Asset, lineage_context: Any) -> Dataset | None:
    """Return the OpenLineage dataset of an asset; None if the asset is not a dataflow.

    Airflow's OpenLineage provider calls this function for inlets and outlets of any task.
    """
    from openlineage.client.event_v2 import Dataset

    found = _parts(urlsplit(asset.uri))
    if found is None:
        return None
    org_id, sandbox, flow_id = found
    return Dataset(namespace=f"{SCHEME}://{_namespace(org_id, sandbox)}", name=f"{_FOLDER}/{flow_id}")


def short(org_id: str) -> str:
    """Return an organization's id without `@AdobeOrg`."""
    return org_id.removesuffix("@AdobeOrg")


def _parts(uri: SplitResult) -> tuple[str | None, str, str] | None:
    """Return organization, sandbox and flow id of a dataflow's URI; None if it is another URI."""
    parts = [uri.netloc, *uri.path.strip("/").split("/")]
    if len(parts) not in (3, 4) or parts[-2] != _FOLDER:
        return None
    return (parts[0] if len(parts) == 4 else None), parts[-3], parts[-1]


def _namespace(org_id: str | None, sandbox: str) -> str:
    if not isinstance(sandbox, str) or not _SANDBOX.fullmatch(sandbox):
        raise ConfigurationError(
            f"sandbox of the asset is {sandbox!r}", remedy="give the sandbox's name (not its title), such as 'prod'"
        )
    if org_id is None:
        return sandbox
    if not isinstance(org_id, str) or not _ORG_ID.fullmatch(org_id):
        raise ConfigurationError(
            f"org_id of the asset is {org_id!r}", remedy="give the organization as in the connection, …@AdobeOrg"
        )
    return f"{short(org_id)}/{sandbox}"


def _checked_partitions(partitions: str) -> str:
    if partitions in _PARTITIONS:
        return partitions
    raise ConfigurationError(f"partitions of the asset is {partitions!r}", remedy=f"use one of {_PARTITIONS}")


def _checked_flow_id(flow_id: str) -> str:
    if not isinstance(flow_id, str) or not _FLOW_ID.fullmatch(flow_id.strip()):
        raise ConfigurationError(
            f"flow_id of the asset is {flow_id!r}",
            remedy="give the dataflow's id, such as 3abea21c-7e36-4be1-bec1-d3bad0e3e0de (it is in the dataflow's "
            "page address); Airflow does not render templates in assets",
        )
    return flow_id.strip().lower()
