"""An HTTP answer as a plain value, so that what reads it needs no connection."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_flowservice.api import _json
from airflow_flowservice.api._text import excerpt, hide, may_have

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came back for one request.

    :param status: the HTTP status.
    :param body: as it came, decompressed.
    :param headers: with lower-case names.
    :param secrets: values that no excerpt may show.
    """

    status: int
    body: bytes = field(default=b"", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)

    @property
    def request_id(self) -> str | None:
        """The `x-request-id`, which Adobe's support asks for."""
        found = self.headers.get("x-request-id") or self.headers.get("x-adobe-request-id")
        return excerpt(found) if found else None

    @property
    def excerpt(self) -> str:
        """The beginning of the body, safe to show; says so when there is none."""
        return repr(excerpt(self.body, secrets=self.secrets)) if self.body.strip() else "an empty body"

    @property
    def is_html(self) -> bool:
        """Whether a page for people came, as proxies and gateways send."""
        content_type = self.headers.get("content-type", "").lower()
        return "html" in content_type or self.body.lstrip()[:1] == b"<"

    def json(self) -> Any:
        """The body's JSON value, or `_json.UNREADABLE`; with `***` where the service sent a secret back."""
        value = _json.parse(self.body)
        if not may_have(self.body, secrets=self.secrets):
            return value
        try:
            return hide(value, secrets=self.secrets)
        except RecursionError:
            return _json.UNREADABLE
