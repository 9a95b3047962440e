# SPDX-License-Identifier: Apache-2.0
"""Authentication and authorization: IMS tokens and the headers of Flow Service requests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

from airflow_flowservice.emulator.errors import EmulatedApiError, EmulatedImsError
from airflow_flowservice.emulator.state import EmulatorState

_FORM = "application/x-www-form-urlencoded"


def grant_token(state: EmulatorState, *, content_type: str, query: str, body: bytes) -> dict[str, Any]:
    """Issue a token for the client credentials in the form body.

    Raises:
        EmulatedImsError: 400 for credentials in the query string, a wrong content type or a wrong grant type;
            401 for a wrong client id or secret.
    """
    if query:
        raise EmulatedImsError(
            400, "invalid_request", "Send the parameters in the body, because query strings are logged."
        )
    if not content_type.startswith(_FORM):
        raise EmulatedImsError(400, "invalid_request", f"The body must be {_FORM}.")
    form = {name: values[-1] for name, values in parse_qs(body.decode("utf-8", "replace")).items()}
    if "grant_type" not in form:
        raise EmulatedImsError(400, "invalid_request", "grant_type is missing.")
    if form["grant_type"] != "client_credentials":
        raise EmulatedImsError(400, "unsupported_grant_type", f"grant_type {form['grant_type']!r} is not supported.")
    settings = state.settings
    client_id = form.get("client_id", "")
    if client_id not in (settings.client_id, settings.reader_id):
        raise EmulatedImsError(401, "invalid_client", "The client is unknown.")
    if form.get("client_secret") != settings.client_secret:
        raise EmulatedImsError(401, "invalid_client", "The client secret is wrong.")
    return {
        "access_token": state.issue_token(client_id),
        "token_type": "bearer",
        "expires_in": int(settings.token_ttl_s),
    }


def authorize(state: EmulatorState, headers: Mapping[str, str]) -> str:
    """Check the headers of a request and return the id of its client.

    Raises:
        EmulatedApiError: 401 for a missing token (403010), an invalid token (401013) or a wrong organization (2000);
            403 for the API key (403000); 400 for a missing organization (400003) or sandbox (2105);
            404 for an unknown sandbox (2100).
    """
    client_id = _authenticate(state, headers.get("authorization"))
    if headers.get("x-api-key") != client_id:
        raise EmulatedApiError(403, "403000", "x-api-key is missing or not the token's client.", gateway=True)
    org_id = headers.get("x-gw-ims-org-id")
    if not org_id:
        raise EmulatedApiError(400, "400003", "The header x-gw-ims-org-id is missing.", gateway=True)
    if org_id != state.settings.org_id:
        raise EmulatedApiError(401, "2000", f"The token gives no access to organization {org_id!r}.")
    sandbox = headers.get("x-sandbox-name")
    if not sandbox:
        raise EmulatedApiError(400, "2105", "The header x-sandbox-name is missing.")
    if sandbox != state.settings.sandbox:
        raise EmulatedApiError(404, "2100", f"There is no sandbox {sandbox!r}.")
    return client_id


def require_creator(state: EmulatorState, client_id: str) -> None:
    """Check that the client may create flow runs.

    Raises:
        EmulatedApiError: 403 with code 1427 for the read-only client.
    """
    if client_id == state.settings.reader_id:
        raise EmulatedApiError(403, "1427", f"A token of {client_id} may not create flow runs.")


def _authenticate(state: EmulatorState, authorization: str | None) -> str:
    if not authorization:
        raise EmulatedApiError(401, "403010", "The OAuth token is missing.", gateway=True)
    scheme, _, token = authorization.partition(" ")
    owner = state.token_owner(token) if scheme.lower() == "bearer" else None
    if owner is None:
        raise EmulatedApiError(401, "401013", "The OAuth token is not valid.", gateway=True)
    return owner
