# SPDX-License-Identifier: Apache-2.0
"""Failed records of a flow run: files of failed rows, and files that failed, from the Data Access API.

Adobe keeps them for 30 days, and only if error diagnostics are enabled on the dataflow. Rows may contain personal data,
so no message, log or `repr` of this module contains a part of a row.

Source: https://experienceleague.adobe.com/en/docs/experience-platform/ingestion/quality/error-diagnostics
"""

from __future__ import annotations

import json
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

from airflow_flowservice.api.http_session import StreamedResponse
from airflow_flowservice.api.json_values import count_at, objects_at, parse_json, text_at, value_at
from airflow_flowservice.api.models import FlowRun, RunError
from airflow_flowservice.api.redaction import may_contain, redact_json
from airflow_flowservice.api.responses import Call, raise_for_status
from airflow_flowservice.api.transport import EXPORT_ROOT
from airflow_flowservice.api.validation import is_identifier
from airflow_flowservice.exceptions import (
    AccessDeniedError,
    ApiError,
    NoAnswerError,
    RunRefusedError,
    UnreadableAnswerError,
)
from airflow_flowservice.plain_text import ID_LENGTH, clean_text

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from airflow_flowservice.api.http_session import HttpResponse
    from airflow_flowservice.api.transport import Transport

MAX_LINE_BYTES = 2**20
"""Maximum size of a row. A longer one is counted as unreadable."""
MAX_FILE_BYTES = 2**30
"""Maximum size of a file of failed rows, as transferred and decompressed."""
DOWNLOAD_TIMEOUTS = 20
"""Limit of the download of one file, as a multiple of `timeout_s`."""
MAX_FILES = 1000
"""Maximum number of files of a kind that are listed for a flow run."""
_MAX_PAGES = 20
_MAX_ERRORS_OF_ROW = 20
_ROW_ERRORS = "row_errors"
# A file without content, which marks the end of an export.
_MARKER = "_SUCCESS"
_DEFAULT_PORTS = {"https": 443, "http": 80}
_FOREIGN_REMEDY = (
    "check the connection's host: it must be the platform's host that Flow Service uses in its links. The link was not "
    "followed, because the access token would be sent to its host"
)
_DOWNLOAD_REMEDY = (
    "start the download again; if it takes too long, limit the number of rows, or raise timeout_s in the connection's "
    f"extra: the download of a file may take {DOWNLOAD_TIMEOUTS} times as long"
)
_DENIED_REMEDY = (
    "ask the Adobe administrator to add the credential to a role or product profile with the permission to view "
    "datasets in this sandbox; the Data Access API requires it"
)
_REMOVED_REMEDY = (
    "run this command again, since Adobe's list of files may be older than the files: Adobe removes failed rows after "
    "30 days"
)
_REFUSED_REMEDY = "read Adobe's message; if it is not clear, give the x-request-id to Adobe's support"


@dataclass(frozen=True, kw_only=True)
class DiagnosticFile:
    """File with failed rows, or a source file that failed.

    :param size: bytes, or None if the response has no size.
    :param path: quoted path below the Data Access API's root, with its query.
    """

    batch_id: str
    name: str
    size: int | None = None
    path: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class FailedRow:
    """Row of the source, which was not ingested.

    :param errors: Adobe's errors of this row, at most 20; empty if the row has none.
    :param values: the row's JSON object, with Adobe's `_errors`.
    :param line: the same object as one line of JSON, without a line break.
    """

    errors: tuple[RunError, ...]
    values: Mapping[str, Any] = field(repr=False)
    line: bytes = field(repr=False)


class FailedRecords:
    """Failed records of one flow run.

    :param transport: requests of the client.
    :param base_url: URL of the platform. Links to any other host are refused.
    :param raw: the flow run's JSON object.
    :param within_s: limit in seconds for the download of a file.
    :param context: context that adds the flow run to errors.
    """

    def __init__(
        self,
        *,
        transport: Transport,
        base_url: str,
        raw: Mapping[str, Any],
        within_s: float,
        context: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self.run = FlowRun.parse(raw)
        self._raw = raw
        self._transport = transport
        self._base_url = base_url
        self._within_s = within_s
        self._context = context

    @property
    def batch_ids(self) -> tuple[str, ...]:
        """Return the batches of the flow run, also those that only its manifests name.

        :raises UnreadableAnswerError: an id cannot be requested; or the run names no batch, and a manifest is at
            another host.
        """
        with self._context():
            return tuple(self._listings())

    def row_files(self) -> list[DiagnosticFile]:
        """List the files of failed rows, at most `MAX_FILES`; empty if Adobe has none.

        :raises UnreadableAnswerError: a link refers to another host, or a response cannot be read.
        :raises ApiError: a request failed.
        """
        with self._context():
            listings = self._listings().items()
            files = (each for batch, path in listings for each in self._files(batch, path, Call.LIST_ROW_ERRORS))
            return list(islice(files, MAX_FILES))

    def failed_files(self) -> list[DiagnosticFile]:
        """List the source files that failed. Adobe lists at most 100 of a batch.

        :raises UnreadableAnswerError: a link refers to another host, or a response cannot be read.
        :raises ApiError: a request failed.
        """
        with self._context():
            paths = ((batch, f"/batches/{quote(batch, safe='')}/failed") for batch in self._listings())
            files = (each for batch, path in paths for each in self._files(batch, path, Call.LIST_FAILED_FILES))
            return [each for each in islice(files, MAX_FILES) if each.name != _MARKER]

    def rows(self, file: DiagnosticFile) -> Generator[FailedRow | None, None, None]:
        """Download a file of failed rows and yield each row; None for a line that is no row or is too long.

        :raises NoAnswerError: the download did not end in time, or is incomplete.
        :raises UnreadableAnswerError: the file exceeds `MAX_FILE_BYTES`, or cannot be decompressed.
        :raises ApiError: the request failed.
        """
        with self._context(), _download_errors():
            response = self._transport.stream_export(file.path, within_s=self._within_s, max_bytes=MAX_FILE_BYTES)
            _raise_for_export(response, Call.GET_ROW_ERRORS)
            if not isinstance(response, StreamedResponse):
                raise UnreadableAnswerError(f"{Call.GET_ROW_ERRORS.value} returned no content")
            with closing(response.pieces):
                for line in lines_of(response.pieces):
                    yield None if line is None else parse_row(line, secrets=response.secrets)

    def _listings(self) -> dict[str, str]:
        """Return the path that lists the failed rows of each batch: the manifest's address, or the documented one."""
        found = {}
        for address in _manifest_addresses(self._raw):
            try:
                path = own_path(address, base_url=self._base_url)
            except UnreadableAnswerError:
                if self.run.batch_ids:
                    continue
                raise
            found[_requestable(unquote(path.split("/")[2].partition("?")[0]))] = path
        for batch in map(_requestable, self.run.batch_ids):
            found.setdefault(batch, f"/batches/{quote(batch, safe='')}/meta?path={_ROW_ERRORS}")
        return found

    def _files(self, batch: str, path: str, call: Call) -> Iterator[DiagnosticFile]:
        for _ in range(_MAX_PAGES):
            response = self._transport.get_export(path)
            if response.status == 404 and not response.is_html:
                return
            _raise_for_export(response, call)
            listing = response.json()
            if not isinstance(value_at(listing, "data"), list):
                raise UnreadableAnswerError(f"{call.value} returned no list: {response.excerpt}")
            for item in objects_at(listing, "data"):
                yield self._file(item, batch)
            following = text_at(listing, "_links", "next", "href", length=None)
            if not following:
                return
            path = own_path(following, base_url=self._base_url)
        raise UnreadableAnswerError(f"{call.value} never ends: it has more than {_MAX_PAGES} pages")

    def _file(self, item: Mapping[str, Any], batch: str) -> DiagnosticFile:
        href = text_at(item, "_links", "self", "href", length=None) or ""
        name = text_at(item, "name", length=ID_LENGTH) or "without a name"
        path = own_path(href, base_url=self._base_url)
        return DiagnosticFile(batch_id=batch, name=name, size=count_at(item, "length"), path=path)


def _manifest_addresses(raw: Mapping[str, Any]) -> Iterator[str]:
    """Yield the addresses in `activities[].statusSummary.extensions.manifest.failedRecords`."""
    for activity in objects_at(raw, "activities"):
        manifest = value_at(activity, "statusSummary", "extensions", "manifest")
        found = value_at(manifest, "failedRecords")
        for each in found if isinstance(found, list) else [found]:
            # Other addresses of manifests are also written as objects.
            address = value_at(each, "path") if isinstance(each, dict) else each
            if isinstance(address, str) and address.strip():
                yield address.strip()


def own_path(href: str, *, base_url: str) -> str:
    """Return the path below the Data Access API's root that a link refers to, with its query.

    :param base_url: URL of the platform, to which the access token may be sent.
    :raises UnreadableAnswerError: the link refers to another host, scheme, port or API.
    """
    try:
        link, base = urlsplit(href), urlsplit(base_url)
        is_own = not (link.scheme or link.netloc) or _origin(link) == _origin(base)
    except ValueError:
        is_own = False
    if not is_own or "@" in link.netloc or "\\" in href or not href.isprintable():
        raise UnreadableAnswerError(
            f"Adobe's response has a link to another host than {urlsplit(base_url).netloc}: {clean_text(href[:200])!r}",
            remedy=_FOREIGN_REMEDY,
        )
    prefix, _, rest = link.path.partition(f"{EXPORT_ROOT}/batches/")
    segments = unquote(rest).split("/")
    if prefix not in ("", base.path) or not segments[0] or {".", ".."} & set(segments):
        raise UnreadableAnswerError(
            f"Adobe's response has a link that is not one of the Data Access API: {clean_text(href[:200])!r}"
        )
    query = f"?{_quoted(link.query)}" if link.query else ""
    return f"/batches/{_quoted(rest)}{query}"


def _origin(parts: Any) -> tuple[str, str | None, int | None]:
    return parts.scheme, parts.hostname, parts.port or _DEFAULT_PORTS.get(parts.scheme)


def _quoted(text: str) -> str:
    return quote(text, safe="%=&+~:/,;@!$'()*-._?")


def _requestable(batch_id: str) -> str:
    if not is_identifier(batch_id):
        raise UnreadableAnswerError(f"the flow run names a batch whose id cannot be requested: {batch_id[:200]!a}")
    return batch_id


@contextmanager
def _download_errors() -> Iterator[None]:
    try:
        yield
    except NoAnswerError as error:
        error.remedy = _DOWNLOAD_REMEDY
        raise


def _raise_for_export(response: HttpResponse, call: Call) -> None:
    try:
        raise_for_status(response, call)
    except ApiError as error:
        if isinstance(error, AccessDeniedError) and error.remedy == AccessDeniedError.default_remedy:
            error.remedy = _DENIED_REMEDY
        elif response.status in (404, 410) and not response.is_html:
            error.remedy = _REMOVED_REMEDY
        elif isinstance(error, RunRefusedError) and not response.is_html:
            error.remedy = _REFUSED_REMEDY
        raise


def lines_of(pieces: Iterable[bytes]) -> Iterator[bytes | None]:
    """Yield the lines of a body that are not blank; None for a line of more than `MAX_LINE_BYTES`.

    At most one line and one piece are in memory.
    """
    line, is_too_long = bytearray(), False
    for piece in pieces:
        *ended, rest = piece.split(b"\n")
        for end in ended:
            # Before the end is added, because a line that is too long is not kept.
            if is_too_long or len(line) + len(end) > MAX_LINE_BYTES:
                yield None
            else:
                yield from _unless_blank(bytes(line + end))
            line, is_too_long = bytearray(), False
        is_too_long = is_too_long or len(line) + len(rest) > MAX_LINE_BYTES
        line = bytearray() if is_too_long else line + rest
    if is_too_long:
        yield None
    else:
        yield from _unless_blank(bytes(line))


def _unless_blank(line: bytes) -> Iterator[bytes]:
    if stripped := line.strip():
        yield stripped


def parse_row(line: bytes, *, secrets: Iterable[str] = ()) -> FailedRow | None:
    """Return the row of a line of JSON, or None if the line is not a JSON object.

    :param secrets: values that are replaced by `***`.
    """
    values = parse_json(line)
    if not isinstance(values, dict):
        return None
    if may_contain(line, secrets=secrets):
        try:
            redacted = redact_json(values, secrets=secrets)
        except RecursionError:
            return None
        if redacted != values:
            values, line = redacted, json.dumps(redacted).encode()
    return FailedRow(errors=tuple(islice(_errors_of(values), _MAX_ERRORS_OF_ROW)), values=values, line=line)


def _errors_of(values: Mapping[str, Any]) -> Iterator[RunError]:
    """Yield the errors in `_errors`: a list, one error, or lists by the name of a check."""
    for error in objects_at(values, "_errors"):
        code = text_at(error, "code", length=ID_LENGTH)
        message = text_at(error, "message")
        if code or message:
            yield RunError(code=code, message=message or "no message")
            continue
        for name in error:
            for nested in objects_at(error, name):
                code, message = text_at(nested, "code", length=ID_LENGTH), text_at(nested, "message")
                if code or message:
                    yield RunError(code=code, message=message or "no message")
