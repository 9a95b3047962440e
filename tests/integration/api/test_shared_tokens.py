# SPDX-License-Identifier: Apache-2.0
"""Tokens that the processes of a machine share: one request to IMS, and no failure that a task would not have."""

from __future__ import annotations

import errno
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from cryptography.fernet import Fernet, MultiFernet
from leaks import leaks
from processes_at_once import run_at_once

from airflow_flowservice.api import auth
from airflow_flowservice.api.client import FlowServiceClient
from airflow_flowservice.api.shared_cache import SharedCache
from airflow_flowservice.emulator import Settings, running_emulator
from airflow_flowservice.emulator.server import Emulator
from airflow_flowservice.exceptions import AccessDeniedError, AuthenticationError, FlowServiceError, ServerError
from airflow_flowservice.windows.window import IngestionWindow

PROGRAM = "show(read_a_dataflow())"
TOKEN = "POST /ims/token/v3"
FLOW = "3abea21c-7e36-4be1-bec1-d3bad0e3e0de"
IMPORTS = """
import logging
from cryptography.fernet import Fernet, MultiFernet
from airflow_flowservice.api.client import FlowServiceClient
from airflow_flowservice.api.shared_cache import SharedCache

def read_a_dataflow():
    cache = SharedCache(folder, cipher=MultiFernet([Fernet(key.encode())]), key=key.encode())
    with FlowServiceClient(**settings, shared_cache=cache) as client:
        next(client.list_flows(limit=1))
        return client.fetch_token()
"""


@pytest.fixture
def secret() -> str:
    return f"s3cret-{uuid4().hex}"


@pytest.fixture
def emulator(secret: str) -> Iterator[Emulator]:
    with running_emulator(Settings(client_secret=secret)) as running:
        yield running


@pytest.fixture
def settings(emulator: Emulator, secret: str) -> dict[str, Any]:
    return {
        "base_url": emulator.url,
        "ims_url": emulator.url,
        "client_id": "emulator-client",
        "client_secret": secret,
        "org_id": "EMULATOR@AdobeOrg",
        "max_attempts": 2,
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def key() -> str:
    return Fernet.generate_key().decode()


@pytest.fixture
def cache(folder: Path, key: str) -> SharedCache:
    return SharedCache(str(folder), cipher=MultiFernet([Fernet(key)]), key=key.encode())


@pytest.fixture
def new_process(settings: dict[str, Any], cache: SharedCache, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Return a function that creates a client as in a new process, without tokens in memory."""

    def make(**changes: Any) -> FlowServiceClient:
        monkeypatch.setattr(auth, "_shared_tokens", {})
        return FlowServiceClient(**{"shared_cache": cache, "pause": lambda _: None, **settings, **changes})

    return make


@pytest.fixture
def fetched(emulator: Emulator) -> Callable[[], int]:
    return lambda: emulator.ledger()["requests"].get(TOKEN, 0)


def files_of(folder: Path) -> list[Path]:
    return [each for each in folder.glob("*") if each.suffix != ".lock"]


# --- real processes ---


@pytest.mark.slow
def test_sixteen_processes_at_once_request_one_token(emulator, settings, folder, key, fetched):
    """One process fetches the token while the others wait."""
    emulator.plan_fault(kind=TOKEN, action="slow", seconds=1)
    values = {"settings": settings, "folder": str(folder), "key": key}
    printed = run_at_once(PROGRAM, count=16, imports=IMPORTS, values=values)
    assert (16, 1, 1) == (len(printed), len(set(printed)), fetched())


@pytest.mark.slow
def test_sixteen_processes_whose_token_is_refused_request_one_token(
    emulator, new_process, settings, folder, key, fetched
):
    """After a 401, one process replaces the shared token."""
    old = new_process().fetch_token()
    emulator.state.expire_tokens()
    values = {"settings": settings, "folder": str(folder), "key": key}
    printed = run_at_once(PROGRAM, count=16, imports=IMPORTS, values=values)
    assert (16, 1, 2) == (len(printed), len(set(printed)), fetched())
    assert old not in printed


@pytest.mark.slow
def test_processes_with_different_keys_do_not_disturb_each_other(settings, folder, fetched):
    """A worker with an old `fernet_key` fetches a separate token, and does not replace the other one."""
    imports = f"{IMPORTS}\nkey = None"
    program = f"key = keys[number % 2]\n{PROGRAM}"
    keys = [Fernet.generate_key().decode() for _ in range(2)]
    printed = run_at_once(
        program,
        count=8,
        imports=imports,
        values={
            "settings": settings,
            "folder": str(folder),
            "keys": keys,
        },
    )
    assert (8, 2) == (len(printed), len(set(printed)))
    assert 2 == fetched()


@pytest.mark.slow
def test_processes_without_a_usable_folder_fetch_separately(settings, folder, key, fetched):
    """Nothing is shared in a folder that another user could have prepared, and no process fails."""
    folder.mkdir()
    folder.chmod(0o777)
    values = {"settings": settings, "folder": str(folder), "key": key}
    printed = run_at_once(PROGRAM, count=4, imports=IMPORTS, values=values)
    assert (4, 4, []) == (len(set(printed)), fetched(), list(folder.iterdir()))


# --- credentials ---


def test_a_new_process_uses_the_token(new_process, fetched):
    """The token is also passed to `on_token`, so that logs mask it."""
    masked: list[str] = []
    tokens = {new_process(on_token=masked.append).fetch_token() for _ in range(3)}
    assert (1, 1, list(tokens) * 3) == (len(tokens), fetched(), masked)


@pytest.mark.parametrize(
    "change",
    [
        {"client_secret": "another"},
        {"org_id": "OTHER@AdobeOrg"},
        {"scopes": "openid"},
        {"client_id": "emulator-reader"},
    ],
    ids=["secret", "organization", "scopes", "client"],
)
def test_another_credential_never_uses_the_token(new_process, folder, change):
    """A changed secret is tested at IMS, as without a cache."""
    first = new_process().fetch_token()
    try:
        second = new_process(**change).fetch_token()
    except AuthenticationError:
        second = None
    assert first != second
    assert (1 if second is None else 2) == len(files_of(folder))


def test_without_a_cache_nothing_is_stored(new_process, fetched, folder):
    new_process(shared_cache=None).fetch_token()
    new_process(shared_cache=None).fetch_token()
    assert (2, False) == (fetched(), folder.exists())


def test_a_cache_without_secrets_stores_no_token(new_process, fetched, folder):
    """Without `fernet_key`, only checked dataflows are shared."""
    for _ in range(2):
        new_process(shared_cache=SharedCache(str(folder), stores_secrets=False)).fetch_token()
    assert (2, False) == (fetched(), folder.exists())


# --- lifetime and refusals ---


def test_a_refused_token_is_replaced(emulator, new_process, fetched):
    """A token that Flow Service refuses with 401 is removed and fetched again."""
    new_process().fetch_token()
    emulator.state.expire_tokens()
    next(new_process().list_flows(limit=1))
    next(new_process().list_flows(limit=1))
    assert 2 == fetched()


def test_a_refused_token_is_removed_although_no_other_can_be_fetched(emulator, new_process, folder, fetched):
    """The next process does not use it."""
    new_process().fetch_token()
    emulator.state.expire_tokens()
    emulator.plan_fault(kind=TOKEN, action="refuse", status=503)
    with pytest.raises(ServerError):
        next(new_process().list_flows(limit=1))
    assert [] == files_of(folder)
    emulator.clear_faults()
    next(new_process().list_flows(limit=1))


def test_a_refused_token_is_not_used_again_if_it_cannot_be_removed(emulator, new_process, folder, fetched, monkeypatch):
    """On a read-only disk, the error is that of IMS, which can pass, and not that of the refused token."""
    new_process().fetch_token()
    emulator.state.expire_tokens()
    emulator.plan_fault(kind=TOKEN, action="refuse", status=503)

    def fails(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "read-only file system")

    monkeypatch.setattr(os, "unlink", fails)
    with pytest.raises(ServerError):
        next(new_process().list_flows(limit=1))
    assert 1 == len(files_of(folder))


def test_a_shared_token_that_lacks_a_permission_is_replaced(emulator, new_process, fetched):
    """The permission may have been granted after the token was issued. A new process would have a new token."""
    new_process().fetch_token()
    emulator.plan_fault(kind="GET /flows", action="refuse", status=403, times=1)
    next(new_process().list_flows(limit=1))
    assert 2 == fetched()


def test_a_post_without_a_permission_is_sent_again_with_another_token(emulator, new_process, fetched):
    """A 403 creates nothing."""
    new_process().fetch_token()
    emulator.plan_fault(kind="POST /runs", action="refuse", status=403, times=1)
    begin = datetime(2026, 1, 1, tzinfo=timezone.utc)
    window = IngestionWindow(begin, begin + timedelta(days=1))
    start = datetime.now(timezone.utc) + timedelta(minutes=1)
    new_process().create_run(flow_id=FLOW, window=window, start_time=start, delta_column="updated_at")
    assert (2, 1) == (fetched(), len(emulator.ledger()["flows"][FLOW]["runs"]))


def test_the_page_of_a_proxy_replaces_no_token(emulator, new_process, fetched):
    new_process().fetch_token()
    page = {"body": "<html>Forbidden</html>", "headers": {"Content-Type": "text/html"}}
    emulator.plan_fault(kind="GET /flows", action="refuse", status=403, **page)
    with pytest.raises(FlowServiceError):
        next(new_process().list_flows(limit=1))
    assert (1, 1) == (fetched(), emulator.ledger()["requests"]["GET /flows"])


def test_a_missing_permission_requests_one_token_in_each_process(emulator, new_process, fetched):
    """As without a cache. The error is that of the last response, and the process keeps its token."""
    new_process().fetch_token()
    emulator.plan_fault(kind="GET /flows", action="refuse", status=403)
    for count in (2, 3):
        client = new_process()
        for _ in range(3):
            with pytest.raises(AccessDeniedError):
                next(client.list_flows(limit=1))
        assert count == fetched()


def test_a_missing_permission_removes_no_token_if_ims_cannot_be_reached(emulator, new_process, fetched):
    """Other processes have the permission that they need, and continue with the token."""
    token = new_process().fetch_token()
    emulator.plan_fault(kind="GET /flows", action="refuse", status=403)
    emulator.plan_fault(kind=TOKEN, action="refuse", status=503)
    with pytest.raises(AccessDeniedError):
        next(new_process().list_flows(limit=1))
    assert token == new_process().fetch_token()


def test_a_revoked_secret_is_reported(emulator, new_process, monkeypatch, folder):
    """The error is that of IMS, as soon as the shared token no longer works."""
    new_process().fetch_token()
    emulator.state.expire_tokens()
    emulator.plan_fault(kind=TOKEN, action="refuse", status=401, body={"error": "invalid_client"})
    with pytest.raises(AuthenticationError):
        next(new_process().list_flows(limit=1))
    assert [] == files_of(folder)


@pytest.mark.parametrize(("age_s", "count"), [(0, 1), (86_000, 1), (86_200, 2), (90_000, 2), (-3_600, 2)])
def test_a_token_is_used_until_shortly_before_it_expires(new_process, folder, key, fetched, age_s, count):
    """A token of the future has an unknown age, because the clock was changed."""
    now = time.time()

    def cache(at: float) -> SharedCache:
        return SharedCache(str(folder), cipher=MultiFernet([Fernet(key)]), key=key.encode(), clock=lambda: at)

    new_process(shared_cache=cache(now)).fetch_token()
    new_process(shared_cache=cache(now + age_s)).fetch_token()
    assert count == fetched()


def test_a_token_that_expires_soon_is_used_if_ims_cannot_be_reached(emulator, new_process, folder, key):
    """The last minutes of a token remain useful, as in one process."""
    now = time.time()
    caches = [
        SharedCache(str(folder), cipher=MultiFernet([Fernet(key)]), key=key.encode(), clock=lambda at=at: now + at)
        for at in (0, 86_200, 90_000)
    ]
    token = new_process(shared_cache=caches[0]).fetch_token()
    emulator.plan_fault(kind=TOKEN, action="refuse", status=503)
    assert token == new_process(shared_cache=caches[1]).fetch_token()
    with pytest.raises(ServerError):
        new_process(shared_cache=caches[2]).fetch_token()


def test_a_long_process_uses_the_token_that_another_one_renewed(new_process, settings, cache, fetched):
    """A triggerer runs for days, and asks the cache before it asks IMS."""
    now = [0.0]
    triggerer = new_process(clock=lambda: now[0])
    triggerer.fetch_token()
    cache.remove(*[each.name for each in files_of(Path(cache._folder))])
    renewed = new_process().fetch_token()
    now[0] = 86_200.0
    assert (renewed, 2) == (triggerer.fetch_token(), fetched())


# --- nothing fails or blocks because of the cache ---


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"token": None},
        {"token": "a b", "refresh_after_s": 80_000, "expires_after_s": 86_400},
        {"token": "tok\r\nen", "refresh_after_s": 80_000, "expires_after_s": 86_400},
        {"token": "tökén", "refresh_after_s": 80_000, "expires_after_s": 86_400},
        {"token": ["t"], "refresh_after_s": 80_000, "expires_after_s": 86_400},
        {"token": "t", "refresh_after_s": "soon", "expires_after_s": 86_400},
        {"token": "t", "refresh_after_s": 1e12, "expires_after_s": 1e12},
        {"token": "t", "refresh_after_s": float("nan"), "expires_after_s": float("nan")},
        {"token": "t", "refresh_after_s": True, "expires_after_s": True},
        {"token": "t"},
    ],
    ids=["empty", "null", "space", "line break", "no ASCII", "list", "text", "years", "NaN", "boolean", "no times"],
)
def test_an_entry_of_another_form_is_not_used(new_process, folder, cache, fetched, value):
    """Another version, or damage, never causes a header that cannot be sent."""
    new_process().fetch_token()
    [file] = files_of(folder)
    cache.write(file.name, value)
    next(new_process().list_flows(limit=1))
    assert 2 == fetched()


def test_a_damaged_file_is_replaced(new_process, folder, fetched):
    new_process().fetch_token()
    [file] = files_of(folder)
    file.write_bytes(b"\0" * 100)
    for _ in range(2):
        next(new_process().list_flows(limit=1))
    assert 2 == fetched()


def test_a_process_that_keeps_the_lock_delays_others_for_a_limited_time(new_process, folder, cache, monkeypatch):
    """After the limit, a process fetches a token without the lock."""
    monkeypatch.setattr("airflow_flowservice.api.shared_cache._MAX_LOCK_WAIT_S", 0.3)
    new_process().fetch_token()
    [file] = files_of(folder)
    cache.remove(file.name)
    with cache.lock(file.name):
        began = time.monotonic()
        new_process().fetch_token()
    assert time.monotonic() - began >= 0.3


def test_the_wait_for_the_lock_leaves_time_for_the_request(new_process, folder, cache, monkeypatch):
    """A short limit must not fail each read for as long as a process with the lock is stopped."""
    new_process().fetch_token()
    [file] = files_of(folder)
    cache.remove(file.name)
    waits = []
    with cache.lock(file.name):
        monkeypatch.setattr(
            "airflow_flowservice.api.shared_cache._acquire", lambda _, *, within_s: waits.append(within_s)
        )
        assert new_process()._auth.token(within_s=16.0)
    assert [8.0] == waits


def test_the_limit_of_a_request_includes_the_wait_for_the_lock(emulator, new_process, folder, cache, monkeypatch):
    """`within_s` of a poll in the triggerer also limits the wait for another process."""
    monkeypatch.setattr("airflow_flowservice.api.shared_cache._MAX_LOCK_WAIT_S", 3600.0)
    new_process().fetch_token()
    [file] = files_of(folder)
    cache.remove(file.name)
    emulator.plan_fault(kind=TOKEN, action="slow", seconds=1)
    released = threading.Event()

    def hold() -> None:
        with cache.lock(file.name):
            released.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    with pytest.raises(Exception, match=r"0\.|within|not sent|limit"):
        new_process().get_run("run-1", within_s=0.4)
    # The other process still has the lock.
    assert thread.is_alive()
    released.set()
    thread.join()


def test_a_folder_that_is_removed_meanwhile_is_created_again(new_process, folder, fetched):
    """Cleaners of temporary folders may remove it at any time."""
    new_process().fetch_token()
    for each in folder.iterdir():
        each.unlink()
    folder.rmdir()
    new_process().fetch_token()
    new_process().fetch_token()
    assert 2 == fetched()


# --- nothing is shown ---


def test_no_file_name_log_or_repr_contains_a_secret(emulator, new_process, folder, secret, caplog):
    caplog.set_level(logging.DEBUG)
    client = new_process()
    token = client.fetch_token()
    emulator.state.expire_tokens()
    next(new_process().list_flows(limit=1))
    [file] = files_of(folder)
    file.chmod(0o644)
    second = new_process().fetch_token()
    everything = f"{caplog.text} {client!r} {client._auth!r} {os.listdir(folder)}"
    assert [] == leaks(everything, [token, second, secret])
    assert [] == leaks(file.read_text(), [token, second, secret])


def test_a_file_in_clear_text_contains_nothing_but_the_token(new_process, folder, secret):
    """With `owner_only`, the client secret is still not in the file."""
    token = new_process(shared_cache=SharedCache(str(folder))).fetch_token()
    [file] = files_of(folder)
    assert {"name", "written_at", "value"} == json.loads(file.read_text()).keys()
    assert token in file.read_text()
    assert [] == leaks(file.read_text(), [secret])
