# SPDX-License-Identifier: Apache-2.0
"""Tests of dataflows as Airflow assets: their URIs, and their names in OpenLineage."""

from __future__ import annotations

from datetime import timedelta

import airflow_versions
import pytest
from airflow.sdk import Asset

from airflow_flowservice.assets import flow_asset
from airflow_flowservice.exceptions import ConfigurationError
from airflow_flowservice.windows.partitions import LENGTHS

FLOW = "3abea21c-7e36-4be1-bec1-d3bad0e3e0de"
ORG = "1234567890ABCDEF"
URI = f"aep://prod/dataflows/{FLOW}"


def test_uri_contains_sandbox_and_dataflow():
    """The URI is the default name."""
    assert (URI, URI) == (flow_asset(FLOW).name, flow_asset(FLOW).uri)
    named = flow_asset(FLOW, sandbox="dev-2", name="orders")
    assert ("orders", f"aep://dev-2/dataflows/{FLOW}") == (named.name, named.uri)


def test_uri_begins_with_the_organization_if_given():
    """The id is without `@AdobeOrg`, because Airflow 3.0 removes the text before an `@`.

    Sandboxes of different organizations can have the same name.
    """
    whole = flow_asset(FLOW, org_id=f"{ORG}@AdobeOrg")
    assert f"aep://{ORG}/prod/dataflows/{FLOW}" == whole.uri
    assert whole == flow_asset(FLOW, org_id=ORG)


@pytest.mark.parametrize("other", [FLOW.upper(), f" {FLOW}\n"], ids=["upper case", "with spaces"])
def test_spellings_of_an_id_give_the_same_asset(other):
    """An outlet in one DAG and a schedule in another DAG must be the same asset."""
    assert flow_asset(FLOW) == flow_asset(other)


@pytest.mark.parametrize(
    "flow_id", ["", " ", None, 7, "orders", FLOW[:-1], f"{FLOW}/x", "{{ var.value.flow }}"], ids=repr
)
def test_invalid_flow_id_is_refused(flow_id):
    """The error is raised when the DAG is parsed. Airflow does not render templates in assets."""
    with pytest.raises(ConfigurationError, match="flow_id of the asset is") as refused:
        flow_asset(flow_id)
    assert "Airflow does not render templates in assets" in refused.value.remedy


@pytest.mark.parametrize("sandbox", ["", "a b", "a/b", "a@b", "a?b", None], ids=repr)
def test_invalid_sandbox_is_refused(sandbox):
    """Otherwise, the value could change other parts of the URI."""
    with pytest.raises(ConfigurationError, match="sandbox of the asset is"):
        flow_asset(FLOW, sandbox=sandbox)


def test_partitions_are_a_fact_of_the_asset():
    """The operator reads them from its outlet, and Airflow shows them."""
    assert {"team": "sales", "partitions": "hour"} == flow_asset(FLOW, partitions="hour", extra={"team": "sales"}).extra
    assert {} == flow_asset(FLOW).extra
    assert set(LENGTHS) == {flow_asset(FLOW, partitions=each).extra["partitions"] for each in LENGTHS}


@pytest.mark.parametrize("partitions", ["", "week", "hours", True, 1, timedelta(hours=1)], ids=repr)
def test_invalid_partitions_are_refused(partitions):
    with pytest.raises(ConfigurationError, match="partitions of the asset is"):
        flow_asset(FLOW, partitions=partitions)


@pytest.mark.parametrize("org_id", ["", "@AdobeOrg", "a@b", "a/b@AdobeOrg", 7], ids=repr)
def test_invalid_organization_is_refused(org_id):
    """Otherwise, the value could change other parts of the URI."""
    with pytest.raises(ConfigurationError, match="org_id of the asset is"):
        flow_asset(FLOW, org_id=org_id)


@pytest.mark.parametrize("place", ["prod", f"{ORG}/prod"])
def test_uri_in_another_spelling_is_the_same_asset(place):
    """Airflow calls `sanitize_uri`, which normalizes the URI."""
    written = Asset(uri=f"AEP://{place}/dataflows/{FLOW.upper()}/?a=1#b")
    assert f"aep://{place}/dataflows/{FLOW}" == written.uri


def test_uri_with_an_invalid_flow_id_is_refused():
    """The error is raised when the DAG is parsed."""
    with pytest.raises(ConfigurationError, match="flow_id of the asset is 'orders'"):
        Asset(uri="aep://prod/dataflows/orders")


@pytest.mark.parametrize(
    "uri", ["aep://prod/datasets/5f0000000000000000000001", "aep://prod/segments/a/b/c", "aep://prod/"]
)
def test_other_uris_of_the_scheme_are_unchanged(uri):
    """Such assets may already exist."""
    assert uri == Asset(uri=uri).uri


def test_hook_can_report_the_asset():
    """Airflow's lineage collector creates the asset from the scheme and the arguments of `flow_asset`."""
    collector = airflow_versions.first("HookLineageCollector", "airflow.sdk.lineage", "airflow.lineage.hook")
    made = collector().create_asset(
        scheme="aep", uri=None, name=None, group=None, asset_kwargs={"flow_id": FLOW}, asset_extra={"a": 1}
    )
    assert (flow_asset(FLOW), {"a": 1}) == (Asset(name=made.name, uri=made.uri), made.extra)


@pytest.mark.parametrize(
    ("asset", "expected"),
    [
        (flow_asset(FLOW), ("aep://prod", f"dataflows/{FLOW}")),
        (flow_asset(FLOW, org_id=ORG, name="orders"), (f"aep://{ORG}/prod", f"dataflows/{FLOW}")),
        (Asset(uri="aep://prod/datasets/1"), None),
    ],
    ids=["sandbox", "organization", "another"],
)
def test_openlineage_dataset_of_an_asset(asset, expected):
    """OpenLineage uses the dataset for inlets and outlets of any task."""
    from airflow.providers.openlineage.utils.utils import translate_airflow_asset

    dataset = translate_airflow_asset(asset, None)
    assert expected == (None if dataset is None else (dataset.namespace, dataset.name))


def test_reference_and_serialization():
    """`Asset.ref` accepts name or URI, and Airflow's serialization restores the same asset."""
    from airflow.serialization.serialized_objects import BaseSerialization

    made = flow_asset(FLOW, name="orders")
    assert (Asset.ref(uri=URI), Asset.ref(name="orders")) == (Asset.ref(uri=made.uri), Asset.ref(name=made.name))
    restored = BaseSerialization.deserialize(BaseSerialization.serialize(made))
    assert ("orders", URI) == (restored.name, restored.uri)
