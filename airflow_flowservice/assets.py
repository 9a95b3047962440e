"""Dataflows as Airflow assets.

An asset's URI is `aep://{sandbox}/dataflows/{flow_id}`, or `aep://{organization}/{sandbox}/dataflows/{flow_id}` where
one Airflow serves several organizations; of an organization's id it has what stands before `@AdobeOrg`, since Airflow
3.0 takes that for the name of a user, and drops it.

Airflow calls `sanitize_uri` for every asset of this scheme, in every process that parses DAGs, so what is imported here
is little.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit

from airflow_flowservice.exceptions import ConfigurationError

if TYPE_CHECKING:
    from airflow.sdk import Asset
    from openlineage.client.event_v2 import Dataset

SCHEME = "aep"

_FOLDER = "dataflows"
_FLOW_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_SANDBOX = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_ORG_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(@AdobeOrg)?")


def flow_asset(
    flow_id: str,
    *,
    sandbox: str = "prod",
    org_id: str | None = None,
    name: str | None = None,
    extra: dict[str, Any] | None = None,
) -> Asset:
    """The asset that a dataflow fills; the same arguments give the same asset in every DAG file.

    As an outlet of a task of this package its events carry the window, the flow run and its counts, and a DAG that is
    scheduled on it takes the window from there.

    :param flow_id: the dataflow's id; as it is, since Airflow renders no templates in assets.
    :param sandbox: the sandbox's name, as in the connection.
    :param org_id: the organization (`…@AdobeOrg`), where one Airflow serves several.
    :param name: what Airflow shows; default: the URI.
    :param extra: facts about the asset itself, as Airflow's own `Asset` takes them.
    :raises ConfigurationError: an id or a name cannot be one.
    """
    from airflow.sdk import Asset

    uri = f"{SCHEME}://{_place(org_id, sandbox)}/{_FOLDER}/{_checked_flow_id(flow_id)}"
    return Asset(name=uri if name is None else name, uri=uri, extra=extra)


def sanitize_uri(uri: SplitResult) -> SplitResult:
    """Airflow's hook for the scheme: a dataflow's URI in its one spelling; others of the scheme as they are.

    :raises ConfigurationError: it looks like a dataflow's and cannot be one.
    """
    found = _parts(uri)
    if found is None:
        return uri
    org_id, sandbox, flow_id = found
    netloc, _, path = f"{_place(org_id, sandbox)}/{_FOLDER}/{_checked_flow_id(flow_id)}".partition("/")
    return uri._replace(netloc=netloc, path=f"/{path}", query="", fragment="")


def convert_asset_to_openlineage(asset: Asset, lineage_context: Any) -> Dataset | None:
    """The asset as OpenLineage names it, for inlets and outlets of any task; None if it is no dataflow's."""
    from openlineage.client.event_v2 import Dataset

    found = _parts(urlsplit(asset.uri))
    if found is None:
        return None
    org_id, sandbox, flow_id = found
    return Dataset(namespace=f"{SCHEME}://{_place(org_id, sandbox)}", name=f"{_FOLDER}/{flow_id}")


def short(org_id: str) -> str:
    """An organization's id without `@AdobeOrg`."""
    return org_id.removesuffix("@AdobeOrg")


def _parts(uri: SplitResult) -> tuple[str | None, str, str] | None:
    """Organization, sandbox and flow id; None if it is not of a dataflow."""
    parts = [uri.netloc, *uri.path.strip("/").split("/")]
    if len(parts) not in (3, 4) or parts[-2] != _FOLDER:
        return None
    return (parts[0] if len(parts) == 4 else None), parts[-3], parts[-1]


def _place(org_id: str | None, sandbox: str) -> str:
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


def _checked_flow_id(flow_id: str) -> str:
    if not isinstance(flow_id, str) or not _FLOW_ID.fullmatch(flow_id.strip()):
        raise ConfigurationError(
            f"flow_id of the asset is {flow_id!r}",
            remedy="give the dataflow's id, such as 3abea21c-7e36-4be1-bec1-d3bad0e3e0de (it is in the dataflow's "
            "page address); templates are not rendered in assets",
        )
    return flow_id.strip().lower()
