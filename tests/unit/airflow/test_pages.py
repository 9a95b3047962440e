# SPDX-License-Identifier: Apache-2.0
"""Verify which URLs are shown as pages of Experience Platform."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from airflow_flowservice._airflow.pages import ExperiencePages, is_experience_page
from airflow_flowservice.links import DataflowLink, FlowRunLink

PAGES = ExperiencePages(organization="ORG@AdobeOrg", sandbox="prod")


@pytest.mark.parametrize(
    "url",
    [
        "https://attacker.example/#/@ORG@AdobeOrg/x",
        "https://experience.adobe.com.attacker.example/#/@ORG@AdobeOrg",
        "https://experience.adobe.com@attacker.example/#/@ORG@AdobeOrg",
        "http://experience.adobe.com/#/@ORG@AdobeOrg/x",
        "https://experience.adobe.com:444/#/@ORG@AdobeOrg/x",
        "https://experience.adobe.com/redirect?to=https://attacker.example",
        "https://experience.adobe.com/#/@OTHER@AdobeOrg/x",
        "//experience.adobe.com/#/@ORG@AdobeOrg/x",
        "javascript:alert(1)",
        "https://experience.adobe.com/#/@ORG@AdobeOrg/\n",
        7,
        {},
    ],
)
def test_link_of_a_changed_xcom_is_not_shown(url):
    """Only a page of the connection's organization is shown, if a look-up has already returned the organization."""
    operator = SimpleNamespace(flow_run_url=url, dataflow_url=url, _hook=_hook("ORG@AdobeOrg"))
    assert "" == FlowRunLink().get_link(operator, ti_key=None)
    assert "" == DataflowLink().get_link(operator, ti_key=None)


@pytest.mark.parametrize("hook", [None, SimpleNamespace()], ids=["no hook", "no look-up"])
def test_organization_is_not_looked_up_for_a_link(hook):
    url = PAGES.flow_run("flow", "run")
    operator = SimpleNamespace(flow_run_url=url, **({"_hook": hook} if hook else {}))
    assert url == FlowRunLink().get_link(operator, ti_key=None)


def test_own_pages_are_shown():
    for url in (PAGES.dataflow(None), PAGES.dataflow("a"), PAGES.flow_run("a", "b")):
        assert is_experience_page(url, organization="ORG@AdobeOrg")


def _hook(organization):
    return SimpleNamespace(client=SimpleNamespace(org_id=organization))
