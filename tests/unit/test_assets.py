"""Dataflows as Airflow assets: one URI each, checked by Airflow's own rules, and told to OpenLineage by name."""

from __future__ import annotations

import airflow_versions
import pytest
from airflow.sdk import Asset

from airflow_flowservice.assets import flow_asset
from airflow_flowservice.exceptions import ConfigurationError

FLOW = "3abea21c-7e36-4be1-bec1-d3bad0e3e0de"
ORG = "1234567890ABCDEF"
URI = f"aep://prod/dataflows/{FLOW}"


def test_the_uri_says_sandbox_and_dataflow():
    """And is the name, unless another one is given."""
    assert (URI, URI) == (flow_asset(FLOW).name, flow_asset(FLOW).uri)
    named = flow_asset(FLOW, sandbox="dev-2", name="orders")
    assert ("orders", f"aep://dev-2/dataflows/{FLOW}") == (named.name, named.uri)


def test_the_organization_comes_first_where_it_is_given():
    """Organizations have sandboxes of the same name. Without `@AdobeOrg`: Airflow 3.0 drops what is before an `@`."""
    whole = flow_asset(FLOW, org_id=f"{ORG}@AdobeOrg")
    assert f"aep://{ORG}/prod/dataflows/{FLOW}" == whole.uri
    assert whole == flow_asset(FLOW, org_id=ORG)


@pytest.mark.parametrize("other", [FLOW.upper(), f" {FLOW}\n"], ids=["upper case", "with spaces"])
def test_a_dataflow_is_one_asset_however_its_id_is_written(other):
    """An outlet in one DAG and a schedule in another must meet."""
    assert flow_asset(FLOW) == flow_asset(other)


@pytest.mark.parametrize(
    "flow_id", ["", " ", None, 7, "orders", FLOW[:-1], f"{FLOW}/x", "{{ var.value.flow }}"], ids=repr
)
def test_what_is_no_flow_id_is_refused(flow_id):
    """When the DAG is parsed; a template would never be rendered."""
    with pytest.raises(ConfigurationError, match="flow_id of the asset is") as refused:
        flow_asset(flow_id)
    assert "templates are not rendered in assets" in refused.value.remedy


@pytest.mark.parametrize("sandbox", ["", "a b", "a/b", "a@b", "a?b", None], ids=repr)
def test_what_is_no_sandbox_is_refused(sandbox):
    """It would become another part of the URI."""
    with pytest.raises(ConfigurationError, match="sandbox of the asset is"):
        flow_asset(FLOW, sandbox=sandbox)


@pytest.mark.parametrize("org_id", ["", "@AdobeOrg", "a@b", "a/b@AdobeOrg", 7], ids=repr)
def test_what_is_no_organization_is_refused(org_id):
    """It would become another part of the URI."""
    with pytest.raises(ConfigurationError, match="org_id of the asset is"):
        flow_asset(FLOW, org_id=org_id)


@pytest.mark.parametrize("place", ["prod", f"{ORG}/prod"])
def test_a_uri_by_hand_is_the_same_asset(place):
    """Airflow has our function bring it into its one spelling."""
    by_hand = Asset(uri=f"AEP://{place}/dataflows/{FLOW.upper()}/?a=1#b")
    assert f"aep://{place}/dataflows/{FLOW}" == by_hand.uri


def test_a_uri_by_hand_that_cannot_be_a_dataflows_is_refused():
    """A typing error shows when the DAG is parsed."""
    with pytest.raises(ConfigurationError, match="flow_id of the asset is 'orders'"):
        Asset(uri="aep://prod/dataflows/orders")


@pytest.mark.parametrize(
    "uri", ["aep://prod/datasets/5f0000000000000000000001", "aep://prod/segments/a/b/c", "aep://prod/"]
)
def test_other_uris_of_the_scheme_are_left_alone(uri):
    """Somebody may have assets like these already."""
    assert uri == Asset(uri=uri).uri


def test_a_hook_can_report_it():
    """Airflow's collector of lineage makes it by the scheme and our arguments."""
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
def test_openlineage_is_told_by_name(asset, expected):
    """As inlet or outlet of any task."""
    from airflow.providers.openlineage.utils.utils import translate_airflow_asset

    dataset = translate_airflow_asset(asset, None)
    assert expected == (None if dataset is None else (dataset.namespace, dataset.name))


def test_it_can_be_referred_to():
    """`Asset.ref` takes name or URI; it stays what it is through Airflow's serialization."""
    from airflow.serialization.serialized_objects import BaseSerialization

    made = flow_asset(FLOW, name="orders")
    assert (Asset.ref(uri=URI), Asset.ref(name="orders")) == (Asset.ref(uri=made.uri), Asset.ref(name=made.name))
    restored = BaseSerialization.deserialize(BaseSerialization.serialize(made))
    assert ("orders", URI) == (restored.name, restored.uri)
