# SPDX-License-Identifier: Apache-2.0
"""Contract with Adobe: every request that the provider sends, and the responses that it accepts, as JSON Schema.

It is independent of the client and of the emulator. Sources: Adobe's tutorial for on-demand ingestion, its page about
IMS tokens, and the reference of Flow Service. Where these disagree, both forms are part of the contract.
`jsonschema` is a dependency of Airflow.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from jsonschema import Draft202012Validator

ID = {"type": "string", "pattern": r"^[A-Za-z0-9][A-Za-z0-9._:=@~+-]*$"}
TEXT = {"type": "string", "minLength": 1}
PROVIDER = "airflow-flowservice/"


def _object(required: Mapping[str, Any], optional: Mapping[str, Any] | None = None, *, closed: bool) -> dict[str, Any]:
    properties = {**required, **(optional or {})}
    return {
        "type": "object",
        "required": list(required),
        "properties": properties,
        **({"additionalProperties": False} if closed else {}),
    }


def _params(time: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of `params`, whose times have one type."""
    column = _object({"name": TEXT}, {"dateFormat": TEXT, "timezone": TEXT}, closed=True)
    times = dict.fromkeys(("startTime", "windowStartTime", "windowEndTime"), time)
    return _object(times, {"deltaColumn": column}, closed=True)


EPOCH_STRING = {"type": "string", "pattern": "^(0|[1-9][0-9]{0,10})$"}
EPOCH_INTEGER = {"type": "integer", "minimum": 0, "maximum": 99_999_999_999}
CREATION = _object({"flowId": ID, "params": {"oneOf": [_params(EPOCH_STRING), _params(EPOCH_INTEGER)]}}, closed=True)
CREATED = _object({"id": ID}, {"etag": TEXT}, closed=False)
CREATED_RESPONSE = {
    "oneOf": [
        _object({"items": {"type": "array", "items": CREATED, "minItems": 1, "maxItems": 1}}, closed=False),
        CREATED,
    ]
}
OBJECT = _object({"id": TEXT}, closed=False)
ONE_RESPONSE = _object({"items": {"type": "array", "items": OBJECT, "minItems": 1, "maxItems": 1}}, closed=False)
LIST_RESPONSE = _object({"items": {"type": "array", "items": OBJECT}, "_links": {"type": "object"}}, closed=False)
TOKEN_FORM = _object(
    {"grant_type": {"const": "client_credentials"}, "client_id": TEXT, "client_secret": TEXT, "scope": TEXT},
    closed=True,
)
TOKEN_RESPONSE = _object({"access_token": TEXT, "expires_in": {"type": "integer", "minimum": 0}}, closed=False)

ACTION_QUERY = _object({"op": {"enum": ["re-trigger", "RE_TRIGGER"]}}, closed=True)
NO_QUERY = _object({}, closed=True)
PROPERTY = {"type": "string", "pattern": r"^[A-Za-z][A-Za-z.\[\]]*(==|!=|<=|>=|<|>).+$"}
LIST_QUERY = _object(
    {},
    {
        "property": {"type": "array", "items": PROPERTY},
        "orderby": {"type": "string", "pattern": r"^-?[A-Za-z.]+$"},
        "limit": {"type": "string", "pattern": "^[1-9][0-9]*$"},
        "continuationToken": TEXT,
    },
    closed=True,
)
ANY_QUERY = {"type": "object"}
HEADERS = _object(
    {
        "authorization": {"type": "string", "pattern": r"^Bearer \S+$"},
        "x-api-key": TEXT,
        "x-gw-ims-org-id": TEXT,
        "x-sandbox-name": TEXT,
    },
    closed=False,
)
_ROOT = "/data/foundation/flowservice"
_ID_IN_PATH = r"[A-Za-z0-9%._:=@~+-]+"


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Request of the provider.

    :param path: regular expression of the whole path, quoted.
    :param body: schema of the JSON body, or of the form's fields; None if the request has no body.
    """

    method: str
    path: str
    query: Mapping[str, Any] = field(default_factory=lambda: NO_QUERY)
    body: Mapping[str, Any] | None = None
    content_type: str = "application/json"
    has_token: bool = True
    response: Mapping[str, Any] = field(default_factory=lambda: ANY_QUERY)


ENDPOINTS = {
    "create a run": Endpoint(method="POST", path=f"{_ROOT}/runs", body=CREATION, response=CREATED_RESPONSE),
    "re-trigger a run": Endpoint(
        method="POST", path=f"{_ROOT}/runs/{_ID_IN_PATH}/action", query=ACTION_QUERY, response=CREATED_RESPONSE
    ),
    "read a run": Endpoint(method="GET", path=f"{_ROOT}/runs/{_ID_IN_PATH}", response=ONE_RESPONSE),
    "list runs": Endpoint(method="GET", path=f"{_ROOT}/runs", query=LIST_QUERY, response=LIST_RESPONSE),
    "read a flow": Endpoint(method="GET", path=f"{_ROOT}/flows/{_ID_IN_PATH}", response=ONE_RESPONSE),
    "list flows": Endpoint(method="GET", path=f"{_ROOT}/flows", query=LIST_QUERY, response=LIST_RESPONSE),
    "read a related object": Endpoint(
        method="GET",
        path=f"{_ROOT}/(flowSpecs|sourceConnections|targetConnections)/{_ID_IN_PATH}",
        response=ONE_RESPONSE,
    ),
    "test a connection": Endpoint(method="GET", path=f"{_ROOT}/connections/{_ID_IN_PATH}/test"),
    "read batches": Endpoint(
        method="GET",
        path=f"/data/foundation/catalog/batches/{_ID_IN_PATH}(,{_ID_IN_PATH})*",
        query=_object({"properties": {"type": "string", "pattern": r"^[A-Za-z]+(,[A-Za-z]+)*$"}}, closed=True),
    ),
    "read failed records": Endpoint(method="GET", path="/data/foundation/export/.+", query=ANY_QUERY),
    "fetch a token": Endpoint(
        method="POST",
        path="/ims/token/v3",
        body=TOKEN_FORM,
        content_type="application/x-www-form-urlencoded",
        has_token=False,
        response=TOKEN_RESPONSE,
    ),
}


def endpoint_of(method: str, path: str) -> str | None:
    """Return the name of the endpoint; None if the contract has none."""
    found = (n for n, each in ENDPOINTS.items() if each.method == method and re.fullmatch(each.path, path))
    return next(found, None)


def request_errors(method: str, target: str, headers: Mapping[str, str], body: bytes) -> list[str]:
    """Return how a request violates the contract.

    :param target: quoted path and query.
    :param headers: headers with lower-case names.
    """
    path, _, query = target.partition("?")
    name = endpoint_of(method, path)
    if name is None:
        return [f"{method} {path} is not in the contract"]
    endpoint = ENDPOINTS[name]
    errors = [*_errors(endpoint.query, _query(query), "query")]
    if endpoint.has_token:
        errors += _errors(HEADERS, dict(headers), "headers")
    elif "authorization" in headers:
        errors.append("a request for a token has no token")
    errors += _body_errors(endpoint, headers.get("content-type", ""), body)
    return [f"{method} {target}: {error}" for error in errors]


def response_errors(name: str, value: Any) -> list[str]:
    """Return how the JSON of a successful response violates the contract."""
    return list(_errors(ENDPOINTS[name].response, value, "response"))


def _query(query: str) -> dict[str, Any]:
    pairs = parse_qsl(query, keep_blank_values=True)
    values: dict[str, Any] = dict(pairs)
    if len(values) != len({*pairs}) and [name for name, _ in pairs].count("property") < 2:
        values["repeated"] = True
    if "property" in values:
        values["property"] = [value for name, value in pairs if name == "property"]
    return values


def _body_errors(endpoint: Endpoint, content_type: str, body: bytes) -> Iterator[str]:
    if endpoint.body is None:
        if body:
            yield f"the request has no body, but {body[:80]!r} was sent"
        return
    if content_type.partition(";")[0] != endpoint.content_type:
        yield f"the Content-Type is {content_type!r}, not {endpoint.content_type}"
        return
    is_json = endpoint.content_type == "application/json"
    try:
        value = json.loads(body) if is_json else dict(parse_qsl(body.decode(), strict_parsing=True))
    except ValueError as error:
        yield f"the body cannot be parsed: {error}"
        return
    yield from _errors(endpoint.body, value, "body")


def _errors(schema: Mapping[str, Any], value: Any, where: str) -> Iterator[str]:
    for error in Draft202012Validator(schema).iter_errors(value):
        yield f"{where} {error.json_path}: {error.message}"


@dataclass
class Recorder:
    """Requests of the provider during a test, and their violations. Requests of other clients are ignored."""

    seen: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    times: set[str] = field(default_factory=set)

    def clear(self) -> None:
        """Forget all requests."""
        self.seen.clear()
        self.violations.clear()
        self.times.clear()

    def check(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> None:
        """Validate a request if the provider sent it."""
        if not headers.get("user-agent", "").startswith(PROVIDER):
            return
        name = endpoint_of(method, target.partition("?")[0])
        self.seen.append(name or "unknown")
        self.violations += request_errors(method, target, headers, body)
        if name == "create a run" and not self.violations:
            self.times.add(type(json.loads(body)["params"]["startTime"]).__name__)


RECORDER = Recorder()


class CheckedApp:
    """ASGI application that validates each request before another application receives it."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._app(scope, _Received(scope, receive).receive, send)


class _Received:
    """Messages of one request, which is validated when its body is complete.

    :param receive: method of uvicorn's request cycle, whose transport the emulator closes for planned faults.
    """

    def __init__(self, scope: Any, receive: Any) -> None:
        self._scope, self._receive, self._body = scope, receive, b""
        self.transport = getattr(getattr(receive, "__self__", None), "transport", None)
        names = {name.lower(): value for name, value in scope["headers"]}
        # An application need not read the body of a request that has none.
        self._has_body = b"transfer-encoding" in names or names.get(b"content-length", b"0") != b"0"
        if not self._has_body:
            self._check()

    async def receive(self) -> Any:
        message = await self._receive()
        if message["type"] == "http.request" and self._has_body:
            self._body += message.get("body", b"")
            if not message.get("more_body"):
                self._check()
        return message

    def _check(self) -> None:
        query = self._scope["query_string"].decode("latin-1")
        path = self._scope.get("raw_path", self._scope["path"].encode()).decode("latin-1")
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in self._scope["headers"]}
        RECORDER.check(self._scope["method"], f"{path}?{query}" if query else path, headers, self._body)
