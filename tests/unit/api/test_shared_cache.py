# SPDX-License-Identifier: Apache-2.0
"""Files of the cache: who can read them, hostile and damaged files, locks, and errors that never reach a task."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet, MultiFernet

from airflow_flowservice.api import shared_cache
from airflow_flowservice.api.shared_cache import CachedValue, SharedCache

TOKEN = {"token": "t0ken-of-the-cache-0123456789"}
MINUTE = 60.0


class Clock:
    """Clock that a test moves. The times of the files are those of the machine."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def _warn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each test cause the warning that a process logs once."""
    monkeypatch.setattr(shared_cache, "_warned", set())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cache(folder: Path, clock: Clock) -> SharedCache:
    return SharedCache(str(folder), clock=clock)


@pytest.fixture
def name(cache: SharedCache) -> str:
    return cache.name("token", "host", "client", "s3cret-of-the-client")


@pytest.fixture
def file(folder: Path, cache: SharedCache, name: str) -> Path:
    """Return the file of an entry that was written."""
    cache.write(name, TOKEN)
    return folder / name


def value_of(cache: SharedCache, name: str) -> dict[str, Any] | None:
    found = cache.read(name, max_age_s=MINUTE)
    return None if found is None else found.value


# --- entries ---


def test_an_entry_is_shared(cache, folder, clock, name):
    """Another cache of the same folder reads the entry, and its age."""
    cache.write(name, TOKEN)
    clock.now += 30
    assert CachedValue(value=TOKEN, age_s=30.0) == SharedCache(str(folder), clock=clock).read(name, max_age_s=MINUTE)


def test_an_entry_is_replaced_and_removed(cache, name):
    cache.write(name, TOKEN)
    cache.write(name, {"token": "another"})
    assert {"token": "another"} == value_of(cache, name)
    cache.remove(name)
    assert value_of(cache, name) is None
    cache.remove(name)


def test_an_old_entry_is_missing(cache, clock, name):
    cache.write(name, TOKEN)
    clock.now += MINUTE + 1
    assert value_of(cache, name) is None


def test_an_entry_from_the_future_is_missing(cache, clock, name):
    """After a change of the clock to an earlier time, the age of an entry is unknown."""
    cache.write(name, TOKEN)
    clock.now -= 3600
    assert value_of(cache, name) is None
    clock.now += 3598
    assert TOKEN == value_of(cache, name)


def test_files_that_are_no_longer_used_are_removed(cache, folder, clock, name, file):
    """An earlier secret leaves no token for longer than two days, and a killed process no temporary file."""
    (folder / f"new-1-{0:016x}").write_text("")
    with cache.lock(name):
        pass
    for each in folder.iterdir():
        os.utime(each, (clock.now - 3 * 24 * 3600,) * 2)
    cache.write(cache.name("token", "another secret"), TOKEN)
    assert 1 == len(list(folder.glob("*.lock")))
    assert [cache.name("token", "another secret")] == [each.name for each in folder.iterdir() if each.suffix != ".lock"]


def test_files_of_other_programs_are_not_removed(cache, folder, clock, name):
    """A user who can write to the parent can give the folder's name to another private folder of this user."""
    folder.mkdir(0o700)
    for each in (others := {"backup.tar", "token-1", "new-1-0", "token-" + "a" * 65}):
        (folder / each).touch()
        os.utime(folder / each, (clock.now - 3 * 24 * 3600,) * 2)
    cache.write(name, TOKEN)
    assert {*others, name} == set(os.listdir(folder))


def test_the_name_reveals_only_its_kind(name):
    kind, _, digest = name.partition("-")
    assert ("token", 64) == (kind, len(digest))
    assert "client" not in name


def test_each_part_changes_the_name(cache):
    """A changed secret never uses the token of the earlier one, also if two parts are joined."""
    parts = [("a", "b", "c"), ("a", "b", "d"), ("a", "bc"), ("ab", "c"), ("a", "c", "b"), ('a","b', "c")]
    assert len(parts) == len({cache.name("token", *each) for each in parts})


def test_the_key_changes_the_name(folder, cache):
    """Without the key, a secret cannot be guessed from the name of its file."""
    assert SharedCache(str(folder), key=b"key").name("token", "a") != cache.name("token", "a")


# --- encryption ---


def encrypted(folder: Path, *keys: bytes, clock: Any = time.time) -> SharedCache:
    return SharedCache(str(folder), cipher=MultiFernet([Fernet(key) for key in keys]), key=keys[0], clock=clock)


def test_the_file_is_encrypted(folder):
    cache = encrypted(folder, Fernet.generate_key())
    cache.write(name := cache.name("token", "a"), TOKEN)
    assert TOKEN["token"].encode() not in (folder / name).read_bytes()
    assert TOKEN == value_of(cache, name)


def test_the_file_of_another_key_is_missing(folder):
    """A process with another key fetches a token, and does not fail."""
    cache = encrypted(folder, Fernet.generate_key())
    cache.write(name := cache.name("token", "a"), TOKEN)
    assert value_of(encrypted(folder, Fernet.generate_key()), name) is None
    assert value_of(SharedCache(str(folder)), name) is None


def test_a_plain_file_is_not_read_where_a_key_exists(folder):
    """A process without the key cannot prepare an entry for a process with the key."""
    cache = encrypted(folder, Fernet.generate_key())
    name = cache.name("token", "a")
    SharedCache(str(folder)).write(name, TOKEN)
    assert value_of(cache, name) is None


def test_a_file_under_another_name_is_missing(folder, cache, file, name):
    """An entry is valid only for the credential for which it was stored."""
    other = cache.name("token", "another")
    file.rename(folder / other)
    assert value_of(cache, other) is None


# --- owner and mode ---


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_only_the_owner_can_use_folder_and_files(cache, folder, name, umask):
    before = os.umask(umask)
    try:
        cache.write(name, TOKEN)
        with cache.lock(name):
            pass
    finally:
        os.umask(before)
    assert 0o700 == stat.S_IMODE(folder.stat().st_mode)
    assert {0o600} == {stat.S_IMODE(each.stat().st_mode) for each in folder.iterdir()}
    assert 2 == len(list(folder.iterdir()))


@pytest.mark.parametrize("mode", [0o750, 0o707, 0o777, 0o1777])
def test_a_folder_of_others_is_not_used(cache, folder, name, caplog, mode):
    """The warning states the reason once for each process."""
    folder.mkdir()
    folder.chmod(mode)
    cache.write(name, TOKEN)
    assert value_of(cache, name) is None
    with cache.lock(name) as has_lock:
        assert not has_lock
    assert [] == list(folder.iterdir())
    assert [f"its mode {mode:o} permits other users to use it"] == [
        record.getMessage().partition(": ")[2].partition(",")[0] for record in caplog.records
    ]


def test_a_folder_of_another_user_is_not_used(cache, folder, name, monkeypatch, caplog):
    folder.mkdir(0o700)
    monkeypatch.setattr(os, "geteuid", lambda: folder.stat().st_uid + 1)
    cache.write(name, TOKEN)
    assert value_of(cache, name) is None
    assert [] == list(folder.iterdir())
    assert "it belongs to the user" in caplog.text


def test_a_link_instead_of_the_folder_is_not_followed(cache, folder, name, tmp_path, caplog):
    (target := tmp_path / "target").mkdir(0o700)
    folder.symlink_to(target)
    cache.write(name, TOKEN)
    assert [] == list(target.iterdir())
    assert value_of(cache, name) is None
    assert "it is a link or no folder" in caplog.text


def test_a_file_instead_of_the_folder_is_not_used(cache, folder, name):
    folder.write_text("")
    cache.write(name, TOKEN)
    assert value_of(cache, name) is None


def test_a_readable_file_is_not_read(cache, name, file):
    """Another user could have read the token, or written the file."""
    file.chmod(0o640)
    assert value_of(cache, name) is None
    cache.write(name, TOKEN)
    assert (TOKEN, 0o600) == (value_of(cache, name), stat.S_IMODE(file.stat().st_mode))


def test_the_warning_names_the_file_that_others_can_use(cache, folder, name, file, caplog):
    """It does not prevent a later warning about the folder."""
    for path in (file, file, folder):
        path.chmod(0o750)
        assert value_of(cache, name) is None
    assert [str(file), str(folder)] == [record.getMessage().partition(": its mode 750")[0] for record in caplog.records]


def test_a_link_instead_of_a_file_is_neither_read_nor_written(cache, folder, name, file, tmp_path):
    file.rename(target := tmp_path / "target")
    file.symlink_to(target)
    before = target.read_bytes()
    assert value_of(cache, name) is None
    cache.write(name, {"token": "new"})
    assert before == target.read_bytes()
    assert {"token": "new"} == value_of(cache, name)


def test_a_link_instead_of_the_lock_is_not_followed(cache, folder, name, tmp_path):
    """The target is neither created nor changed."""
    with cache.lock(name):
        pass
    [lock] = folder.glob("*.lock")
    lock.unlink()
    lock.symlink_to(tmp_path / "target")
    with cache.lock(name) as has_lock:
        assert not has_lock
    assert not (tmp_path / "target").exists()


def test_a_pipe_does_not_block(cache, folder, name):
    """Opening a named pipe waits for its other end."""
    cache.read(name, max_age_s=1)
    os.mkfifo(folder / name, 0o600)
    assert value_of(cache, name) is None


def test_a_folder_instead_of_a_file_is_missing(cache, folder, name):
    cache.read(name, max_age_s=1)
    (folder / name).mkdir()
    assert value_of(cache, name) is None
    cache.write(name, TOKEN)
    cache.remove(name)
    assert [name] == [each.name for each in folder.iterdir()]


# --- damaged files and failing disks ---


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"\xff\xfe\x00",
        b'{"name": 1}',
        b'{"value": {}, "written_at": 1}',
        b"x" * 1_000_000,
        b"[" * 60_000,
    ],
    ids=["empty", "cut", "null", "list", "no text", "another form", "no name", "huge", "deep"],
)
@pytest.mark.parametrize("has_key", [True, False], ids=["encrypted", "plain"])
def test_a_damaged_file_is_missing(folder, content, has_key):
    cache = encrypted(folder, Fernet.generate_key()) if has_key else SharedCache(str(folder))
    cache.write(name := cache.name("token", "a"), TOKEN)
    (folder / name).write_bytes(content)
    assert value_of(cache, name) is None
    cache.write(name, TOKEN)
    assert TOKEN == value_of(cache, name)


@pytest.mark.parametrize("written_at", ['"soon"', "null", "NaN", "1e999", "-1e999", "[]"])
def test_an_entry_with_a_bad_time_is_missing(cache, file, name, written_at):
    file.write_text(f'{{"name": "{name}", "written_at": {written_at}, "value": {{}}}}')
    assert cache.read(name, max_age_s=1e300) is None


def test_a_file_that_was_cut_anywhere_is_missing(cache, file, name):
    """A crash of the machine may leave a part of a file."""
    whole = file.read_bytes()
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        assert value_of(cache, name) is None


@pytest.mark.parametrize("function", ["mkdir", "open", "replace", "fdopen", "fstat"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO, errno.EMFILE])
def test_an_error_of_the_disk_does_not_reach_the_caller(cache, folder, name, monkeypatch, caplog, function, code):
    """The value is then not shared, and no part of a file is left."""
    caplog.set_level(logging.DEBUG)

    def fails(*args: Any, **kwargs: Any) -> Any:
        raise OSError(code, "as planned")

    with monkeypatch.context() as patch:
        patch.setattr(os, function, fails)
        cache.write(name, TOKEN)
        assert value_of(cache, name) is None
        cache.remove(name)
        with cache.lock(name) as has_lock:
            assert has_lock == (function in ("replace", "fdopen"))
    assert [] == [each.name for each in folder.glob("*") if each.suffix != ".lock"]
    assert errno.errorcode[code] in caplog.text


def test_a_full_disk_leaves_the_earlier_entry(cache, folder, file, name, monkeypatch):
    """The new file gets its name only when it is complete."""

    def full(*args: Any, **kwargs: Any) -> Any:
        raise OSError(errno.ENOSPC, "as planned")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        cache.write(name, {"token": "new"})
    assert TOKEN == value_of(cache, name)
    assert [name] == [each.name for each in folder.iterdir()]


def test_a_missing_parent_is_no_error(tmp_path, name):
    cache = SharedCache(str(tmp_path / "missing" / "cache"))
    cache.write(name, TOKEN)
    assert value_of(cache, name) is None


def test_a_value_that_is_too_large_is_not_written(cache, name):
    cache.write(name, {"token": "x" * 100_000})
    assert value_of(cache, name) is None


# --- locks ---


def test_one_thread_holds_the_lock(cache, name):
    """Sixteen threads hold it one after the other."""
    held, most = [0], [0]

    def hold() -> None:
        with cache.lock(name) as has_lock:
            assert has_lock
            held[0] += 1
            most[0] = max(most[0], held[0])
            time.sleep(0.002)
            held[0] -= 1

    threads = [threading.Thread(target=hold) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [1] == most


def test_the_wait_for_a_lock_has_a_limit(cache, name, monkeypatch):
    with cache.lock(name):
        began = time.monotonic()
        with cache.lock(name, within_s=0.1) as has_lock:
            assert not has_lock
        assert time.monotonic() - began >= 0.1
        monkeypatch.setattr(shared_cache, "_MAX_LOCK_WAIT_S", 0.1)
        for unbounded in (float("inf"), 1e9):
            with cache.lock(name, within_s=unbounded) as has_lock:
                assert not has_lock
        for over in (0.0, -1.0, float("-inf")):
            with cache.lock(name, within_s=over) as has_lock:
                assert not has_lock


def test_an_error_releases_the_lock(cache, name):
    with pytest.raises(KeyError), cache.lock(name):
        raise KeyError
    with cache.lock(name, within_s=0) as has_lock:
        assert has_lock


def test_kinds_have_separate_locks(cache):
    """A process that checks a dataflow holds its lock while it fetches a token."""
    for each in range(64):
        flow, token = cache.name("flow", "x"), cache.name("token", str(each))
        with cache.lock(flow, within_s=0) as has_flow, cache.lock(token, within_s=0) as has_token:
            assert (True, True) == (has_flow, has_token)


def test_the_number_of_locks_is_bounded(cache, folder):
    for each in range(100):
        with cache.lock(cache.name("token", str(each))):
            pass
    assert 16 >= len(list(folder.iterdir()))


def test_a_file_system_without_locks_is_no_error(cache, name, monkeypatch):
    def unsupported(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "as planned")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with cache.lock(name) as has_lock:
        assert not has_lock


def test_a_killed_process_releases_the_lock(cache, folder, name):
    """A stopped process keeps it, and the others wait no longer than the limit."""
    program = (
        "import sys, time\n"
        "from airflow_flowservice.api.shared_cache import SharedCache\n"
        f"with SharedCache({str(folder)!r}).lock({name!r}) as has_lock:\n"
        "    print(has_lock, flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert "True\n" == holder.stdout.readline()
        holder.send_signal(signal.SIGSTOP)
        with cache.lock(name, within_s=0.2) as has_lock:
            assert not has_lock
        holder.kill()
        holder.wait(60)
        with cache.lock(name, within_s=30) as has_lock:
            assert has_lock


def test_a_forked_process_does_not_keep_the_lock(cache, name, monkeypatch):
    """A process that is forked while the lock is held has a duplicate of the descriptor."""
    duplicates = []

    def flock(descriptor: int, operation: int) -> None:
        if operation != fcntl.LOCK_UN:
            duplicates.append(os.dup(descriptor))
        original(descriptor, operation)

    original = fcntl.flock
    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", flock)
        with cache.lock(name) as has_lock:
            assert has_lock
    with cache.lock(name, within_s=0) as has_lock:
        assert has_lock
    for each in duplicates:
        os.close(each)


# --- nothing is shown ---


def test_neither_repr_nor_log_shows_a_value(cache, folder, file, name, caplog):
    caplog.set_level(logging.DEBUG)
    found = cache.read(name, max_age_s=MINUTE)
    file.write_text(json.dumps({"name": name, "written_at": TOKEN["token"], "value": TOKEN}))
    assert value_of(cache, name) is None
    text = f"{found!r} {cache!r} {caplog.text}"
    assert TOKEN["token"] not in text
    assert "cannot be read" in text
