# SPDX-License-Identifier: Apache-2.0
"""Cache that the processes of a machine share, as Airflow's configuration sets it."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from typing import TYPE_CHECKING

from airflow_flowservice._airflow import versions
from airflow_flowservice.exceptions import ConfigurationError

if TYPE_CHECKING:
    from airflow_flowservice.api.shared_cache import SharedCache

log = logging.getLogger(__name__)

_DEFAULT = "encrypted"
_VALUES = (_DEFAULT, "owner_only", "none")
_FOLDERS = ("/tmp", "/var/tmp", "/usr/tmp")  # noqa: S108  # those of Python's `tempfile`


def shared_cache() -> SharedCache | None:
    """Return the cache of `[flowservice] token_cache`; None if it is `none`, or if there is no temporary folder.

    Without a Fernet key, the cache stores no tokens, unless the option is `owner_only`.

    :raises ConfigurationError: the option has another value.
    """
    mode = versions.setting("token_cache") or _DEFAULT
    if mode not in _VALUES:
        raise ConfigurationError(
            f"token_cache in the section [flowservice] of Airflow's configuration is {mode!r}",
            remedy=f"use one of {', '.join(f'`{value}`' for value in _VALUES)}",
        )
    if mode == "none":
        return None
    from airflow_flowservice.api.shared_cache import SharedCache

    try:
        parent = _temporary_folder()
    except OSError as error:
        log.debug("There is no temporary folder, so processes share nothing: %s", error)
        return None
    folder = os.path.join(parent, f"airflow-flowservice-{os.geteuid()}")
    keys = _fernet_keys()
    try:
        from cryptography.fernet import Fernet, MultiFernet

        cipher = MultiFernet([Fernet(key) for key in keys]) if keys else None
    except (ImportError, ValueError, TypeError):
        # The text of the error may contain a part of the key.
        keys, cipher = [], None
        log.debug("[core] fernet_key is invalid, so it is not used")
    digest = hashlib.sha256(b"airflow_flowservice" + keys[0]).digest() if keys else b""
    return SharedCache(folder, cipher=cipher, key=digest, stores_secrets=cipher is not None or mode == "owner_only")


def _temporary_folder() -> str:
    """Return the temporary folder of the machine.

    :raises FileNotFoundError: there is none that can be used.
    """
    folder = tempfile.gettempdir()
    named = [*map(os.environ.get, ("TMPDIR", "TEMP", "TMP")), *_FOLDERS]
    # If no other folder can be used, Python uses the working directory, which may be a repository or a shared disk.
    if folder not in [os.path.abspath(each) for each in named if each] and folder == os.getcwd():
        raise FileNotFoundError("only the working directory can be used")
    return folder


def _fernet_keys() -> list[bytes]:
    """Return the keys of `[core] fernet_key`: the current one, and earlier ones that can only decrypt."""
    try:
        text = versions.fernet_key()
    except Exception as error:
        # The value may be the output of a command or of a secrets backend that is not available on the worker.
        log.debug("[core] fernet_key cannot be read: %s", type(error).__name__)
        return []
    return [key.strip().encode() for key in text.split(",") if key.strip()]
