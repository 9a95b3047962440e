# SPDX-License-Identifier: Apache-2.0
"""The cache that Airflow's configuration sets: its mode, its folder and the Fernet key."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from airflow_flowservice._airflow import cache_settings
from airflow_flowservice._airflow.cache_settings import shared_cache
from airflow_flowservice.exceptions import ConfigurationError

OLD, NEW = (Fernet.generate_key().decode() for _ in range(2))
VALUE = {"token": "t0ken-of-the-cache"}


@pytest.fixture(autouse=True)
def configure(tmp_path, monkeypatch):
    """Return a function that sets the options."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def set_options(mode: str, key: str = "") -> None:
        monkeypatch.setenv("AIRFLOW__FLOWSERVICE__TOKEN_CACHE", mode)
        monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", key)

    set_options("")
    return set_options


def stored(mode_and_key, configure):
    """Store an entry with these options, and return the content of its file."""
    configure(*mode_and_key)
    cache = shared_cache()
    assert cache is not None
    cache.write(name := cache.name("token", "client"), VALUE)
    return (Path(tempfile.gettempdir()) / f"airflow-flowservice-{os.geteuid()}" / name).read_bytes()


def is_found():
    cache = shared_cache()
    assert cache is not None
    found = cache.read(cache.name("token", "client"), max_age_s=60)
    return found is not None and found.value == VALUE


@pytest.mark.parametrize("mode", ["", "encrypted", "owner_only"])
def test_a_fernet_key_encrypts_in_every_mode(configure, mode):
    assert b"t0ken" not in stored((mode, NEW), configure)
    assert is_found()
    assert shared_cache().stores_secrets


KEYS = {"empty": "", "literal": "{FERNET_KEY}", "no key": "no key", "one valid": f"{NEW},no key", "comma": ","}


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_without_a_valid_key_no_token_is_stored_by_default(configure, key):
    """Since Airflow 3.2, the default of a worker is the unexpanded `{FERNET_KEY}`."""
    configure("", key)
    assert not shared_cache().stores_secrets


def test_owner_only_stores_tokens_in_clear_text_if_there_is_no_key(configure):
    assert b"t0ken" in stored(("owner_only", ""), configure)
    assert shared_cache().stores_secrets


def test_a_rotated_key_finds_no_entry_of_the_earlier_key(configure):
    """Each process then fetches one token; it needs no key that was removed."""
    stored(("encrypted", OLD), configure)
    configure("encrypted", f"{NEW},{OLD}")
    assert not is_found()
    stored(("encrypted", f"{NEW},{OLD}"), configure)
    configure("encrypted", NEW)
    assert is_found()
    configure("encrypted", OLD)
    assert is_found()


def test_none_is_no_cache(configure):
    configure("none", NEW)
    assert shared_cache() is None


def test_another_value_is_an_error(configure):
    configure("on")
    with pytest.raises(ConfigurationError, match="token_cache in the section") as caught:
        shared_cache()
    assert "use one of `encrypted`, `owner_only`, `none`" == caught.value.remedy


def test_a_key_that_cannot_be_read_is_no_key(configure, monkeypatch, caplog):
    """The command of `fernet_key_cmd` may be missing on a worker."""
    caplog.set_level("DEBUG")

    def fails():
        raise RuntimeError(f"the output was {NEW}")

    monkeypatch.setattr(cache_settings.versions, "fernet_key", fails)
    assert not shared_cache().stores_secrets
    assert NEW not in caplog.text


def test_without_a_temporary_folder_there_is_no_cache(configure, monkeypatch):
    def fails():
        raise FileNotFoundError("no usable temporary directory")

    monkeypatch.setattr(tempfile, "gettempdir", fails)
    assert shared_cache() is None


@pytest.mark.parametrize("is_named", [False, True])
def test_the_working_directory_is_no_temporary_folder(configure, monkeypatch, tmp_path, is_named):
    """Python uses it if the other folders are full or read-only. It may be a repository, or on a shared disk."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path) if is_named else "/nowhere")
    assert (shared_cache() is not None) == is_named
