# SPDX-License-Identifier: Apache-2.0
"""Values that the processes of one operating-system user on one machine share, in owner-only files.

Airflow runs each task in a new process, so a cache in memory does not outlive a task. An entry is a file in a folder
that only its owner can use. Each operation opens the folder without following links, verifies owner and mode, and
uses names relative to this open folder. Another user can therefore neither read, exchange nor redirect an entry.

No error of the cache reaches the caller: an entry that cannot be read is missing, and a value that cannot be written
is not shared.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import hmac
import json
import logging
import os
import re
import secrets
import stat
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

log = logging.getLogger(__name__)

_MAX_BYTES = 64 * 1024
_MAX_LOCK_WAIT_S = 10.0
_LOCK_POLL_S = 0.02
_OLDEST_S = 2 * 24 * 3600.0
"""Age of a file that is removed. Adobe's tokens are valid for a day."""
_CLOCK_TOLERANCE_S = 5.0
_NO_FOLLOW = os.O_NOFOLLOW | os.O_CLOEXEC
_warned: set[str] = set()


class Cipher(Protocol):
    """Authenticated encryption; `cryptography.fernet.MultiFernet` is one."""

    def encrypt(self, msg: bytes) -> bytes:
        """Return the encrypted data."""

    def decrypt(self, msg: bytes) -> bytes:
        """Return the data; raise an error if another key encrypted them."""


@dataclass(frozen=True, kw_only=True)
class CachedValue:
    """Entry of the cache.

    :param value: JSON object; not in the `repr`, because it may contain a token.
    :param age_s: seconds since it was written, not negative.
    """

    value: dict[str, Any] = field(repr=False)
    age_s: float


class SharedCache:
    """Cache of JSON objects in one folder.

    :param folder: path of the folder, which is created if it does not exist; its parent must exist.
    :param cipher: encrypts the entries; None to store them in clear text.
    :param key: makes the names of the files unpredictable; the entries of another key are not found.
    :param stores_secrets: False if the entries must not contain a token.
    :param clock: epoch seconds.
    """

    def __init__(
        self,
        folder: str,
        *,
        cipher: Cipher | None = None,
        key: bytes = b"",
        stores_secrets: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.stores_secrets = stores_secrets
        self._folder = folder
        self._cipher = cipher
        self._key = key
        self._clock = clock

    def __repr__(self) -> str:
        return f"<SharedCache {self._folder}>"

    def name(self, kind: str, *parts: str) -> str:
        """Return the name of an entry, which reveals its kind only.

        :param kind: a word in lower case; entries of different kinds have separate locks.
        :param parts: all that the value depends on, also secrets.
        """
        digest = hmac.new(self._key, json.dumps(parts).encode(), hashlib.sha256).hexdigest()
        return f"{kind}-{digest}"

    def read(self, name: str, *, max_age_s: float) -> CachedValue | None:
        """Return the entry; None if there is none, if it is too old or from the future, or if it cannot be trusted."""
        with self._errors_logged(), self._opened_folder() as folder:
            content = _read_owned(name, folder)
            found = self._decoded(name, content) if content is not None else None
            return found if found is not None and found.age_s <= max_age_s else None
        return None

    def write(self, name: str, value: dict[str, Any]) -> None:
        """Create or replace the entry atomically. Do nothing if it cannot be written."""
        with self._errors_logged(), self._opened_folder() as folder:
            text = json.dumps({"name": name, "written_at": self._clock(), "value": value}).encode()
            content = text if self._cipher is None else self._cipher.encrypt(text)
            if len(content) <= _MAX_BYTES:
                _replace_owned(name, content, folder)
            self._remove_old_files(folder)

    def remove(self, name: str) -> None:
        """Remove the entry. Do nothing if there is none, or if it cannot be removed."""
        with self._errors_logged(), suppress(FileNotFoundError), self._opened_folder() as folder:
            os.unlink(name, dir_fd=folder)

    @contextmanager
    def lock(self, name: str, *, within_s: float = _MAX_LOCK_WAIT_S) -> Iterator[bool]:
        """Hold the lock of an entry among all processes and threads; the value is False if it could not be acquired.

        The wait has a limit of ten seconds. The kernel releases the lock of a process that ends, also if it is killed.

        :param within_s: limit of the wait in seconds; the maximum is ten.
        """
        descriptor = None
        with self._errors_logged(), self._opened_folder() as folder:
            descriptor = _open_owned(_lock_file(name), os.O_RDWR | os.O_CREAT, folder)
        try:
            yield descriptor is not None and _acquire(descriptor, within_s=min(within_s, _MAX_LOCK_WAIT_S))
        finally:
            if descriptor is not None:
                with suppress(OSError):
                    # Without this, a process that was forked meanwhile would keep the lock.
                    fcntl.flock(descriptor, fcntl.LOCK_UN)
                os.close(descriptor)

    def _decoded(self, name: str, content: bytes) -> CachedValue | None:
        """Return the value of a file; None if the file is damaged, or if another key or machine wrote it."""
        try:
            text = content if self._cipher is None else self._cipher.decrypt(content)
            entry = json.loads(text)
            if entry["name"] != name or not isinstance(entry["value"], dict):
                return None
            age_s = self._clock() - float(entry["written_at"])
        except Exception as error:
            # The text of the error may contain a part of the file.
            log.debug("The entry %s of %r cannot be read: %s", name, self, type(error).__name__)
            return None
        # After a change of the clock to an earlier time, the age is unknown.
        return CachedValue(value=entry["value"], age_s=max(age_s, 0.0)) if age_s >= -_CLOCK_TOLERANCE_S else None

    @contextmanager
    def _errors_logged(self) -> Iterator[None]:
        try:
            yield
        except _UnsafeError as error:
            path, effect = self._folder, "processes share nothing there"
            if error.file is not None:
                path, effect = os.path.join(self._folder, error.file), "it is not used"
            if path not in _warned:
                _warned.add(path)
                log.warning("%s: %s, so %s", path, error, effect)
        except OSError as error:
            log.debug("%r cannot be used: %s", self, errno.errorcode.get(error.errno or 0, type(error).__name__))

    @contextmanager
    def _opened_folder(self) -> Iterator[int]:
        """Yield a descriptor of the folder.

        :raises _UnsafeError: another user owns the folder, or can use it.
        """
        with suppress(FileExistsError):
            os.mkdir(self._folder, 0o700)
        try:
            descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | _NO_FOLLOW)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise _UnsafeError("it is a link or no folder") from None
            raise
        try:
            _require_owner_only(os.fstat(descriptor))
            yield descriptor
        finally:
            os.close(descriptor)

    def _remove_old_files(self, folder: int) -> None:
        """Remove entries that are no longer used, for instance those of an earlier client secret.

        Other files remain, because a user who can write to the parent can rename another folder of this user.
        """
        for name in filter(_OWN_FILE.fullmatch, os.listdir(folder)):
            with suppress(OSError):
                if self._clock() - os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime > _OLDEST_S:
                    os.unlink(name, dir_fd=folder)


class _UnsafeError(Exception):
    """A file or folder that another user could have prepared, or could read.

    :param file: name of the file; None for the folder.
    """

    def __init__(self, reason: str, *, file: str | None = None) -> None:
        super().__init__(reason)
        self.file = file


_LOCK_SUFFIX = ".lock"
_OWN_FILE = re.compile(r"[a-z]+-[0-9a-f]{64}|new-[0-9]+-[0-9a-f]{16}")
"""Names of entries, and of entries that a killed process did not complete."""


def _lock_file(name: str) -> str:
    """Return one of sixteen files for each kind, so that their number is bounded and they are never removed."""
    kind, _, digest = name.rpartition("-")
    return f"{kind}-{digest[:1]}{_LOCK_SUFFIX}"


def _acquire(descriptor: int, *, within_s: float) -> bool:
    ends_at = time.monotonic() + within_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= ends_at:
                return False
            time.sleep(_LOCK_POLL_S)
        except OSError:
            # Some file systems have no locks.
            return False
        else:
            return True


def _open_owned(name: str, flags: int, folder: int) -> int:
    """Return a descriptor of a regular file that only this user can use.

    :raises _UnsafeError: the file is another one.
    """
    # Without O_NONBLOCK, opening a named pipe would wait for its other end.
    descriptor = os.open(name, flags | _NO_FOLLOW | os.O_NONBLOCK, 0o600, dir_fd=folder)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _UnsafeError("it is no regular file", file=name)
        _require_owner_only(status, file=name)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _require_owner_only(status: os.stat_result, *, file: str | None = None) -> None:
    user, mode = os.geteuid(), stat.S_IMODE(status.st_mode)
    if status.st_uid != user:
        reason = f"it belongs to the user {status.st_uid}, not to the user {user} of this process"
        raise _UnsafeError(reason, file=file)
    if mode & 0o077:
        raise _UnsafeError(f"its mode {mode:o} permits other users to use it", file=file)


def _read_owned(name: str, folder: int) -> bytes | None:
    """Return the content of a file; None if it does not exist or is too large."""
    try:
        descriptor = _open_owned(name, os.O_RDONLY, folder)
    except FileNotFoundError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        content = file.read(_MAX_BYTES + 1)
    return content if len(content) <= _MAX_BYTES else None


def _replace_owned(name: str, content: bytes, folder: int) -> None:
    """Write a new file, and give it the name when it is complete."""
    temporary = f"new-{os.getpid()}-{secrets.token_hex(8)}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_FOLLOW, 0o600, dir_fd=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary, dir_fd=folder)
        raise
