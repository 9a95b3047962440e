"""Child processes that do not outlive the process which started them.

Every child leads a session of its own, so a Ctrl-C in the terminal reaches only the parent, and what a
child starts can be found again by its session. A guard (:mod:`airflow_flowservice.demo.guard`) watches
the parent through a pipe: however the parent ends, the guard ends what is left.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, TypeVar

import psutil

from airflow_flowservice.demo import guard

T = TypeVar("T")


class LocalAirflowError(RuntimeError):
    """A process of the local Airflow failed; the message shows its log's last lines and what to do."""


class Account(TypedDict, total=False):
    """The user that a child runs as, in :mod:`subprocess`'s words; empty for the parent's own."""

    user: int
    group: int
    extra_groups: list[int]


@dataclass(frozen=True)
class Child:
    """A started process: its name, its handle and the file that has its output."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    stop_signal: signal.Signals

    @property
    def pid(self) -> int:
        """The process id, which is also the id of its session."""
        return self.process.pid

    @property
    def running(self) -> bool:
        """Whether the process has not ended."""
        return self.process.poll() is None


class Supervisor:
    """Starts children, knows which of them died unasked, and stops them all.

    :param log_folder: where each child's output goes, as ``<name>.log``.

    Use it as a context manager. Folders given to :meth:`remove_at_end` are removed at the end, also when
    this process is killed.
    """

    def __init__(self, *, log_folder: Path) -> None:
        self._log_folder = log_folder
        self._children: dict[str, Child] = {}
        self._guard: subprocess.Popen[str] | None = None

    def __enter__(self) -> Supervisor:
        self._log_folder.mkdir(parents=True, exist_ok=True)
        self._guard = guard.start()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            first = [child for child in self._children.values() if child.stop_signal is signal.SIGTERM]
            self._stop(first, grace=2.0)
            self._stop(self._children.values(), grace=10.0)
        finally:
            self._dismiss_guard()

    @property
    def children(self) -> Mapping[str, Child]:
        """The children by name, without those that were killed or stopped."""
        return dict(self._children)

    def start(
        self,
        name: str,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        account: Account | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> Child:
        """Start ``argv`` in a session of its own.

        :param name: unique among the running children.
        :param account: the user to run as; the caller's own by default.
        :param stop_signal: what ends it politely; children with ``SIGTERM`` are stopped before the others.
        :raises LocalAirflowError: a child of that name is running.
        """
        if name in self._children:
            raise LocalAirflowError(f"{name} is already running (pid {self._children[name].pid})")
        log = self.log_file(name)
        with log.open("ab") as output:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(env),
                cwd=cwd,
                start_new_session=True,
                **(account or Account()),
            )
        child = Child(name=name, process=process, log=log, stop_signal=stop_signal)
        self._children[name] = child
        self._tell_guard("session", str(process.pid))
        return child

    def stop(self, name: str, *, grace: float = 5.0) -> None:
        """Stop a child politely; kill what is left of it after ``grace`` seconds."""
        self._stop([self._child(name)], grace=grace)

    def kill(self, name: str) -> None:
        """Kill a child and all that it started (``SIGKILL``)."""
        self._stop([self._child(name)], grace=0.0)

    def check(self) -> None:
        """Raise :class:`LocalAirflowError` when a child has ended unasked."""
        for child in self._children.values():
            if not child.running:
                raise LocalAirflowError(
                    f"{child.name} ended with status {child.process.returncode}.\n{self.tail(child.name)}"
                )

    def log_file(self, name: str) -> Path:
        """The file with the output of the child ``name``."""
        return self._log_folder / f"{name}.log"

    def tail(self, name: str, *, lines: int = 40) -> str:
        """The last lines of a child's output, under a heading that names the file."""
        file = self.log_file(name)
        text = file.read_text(errors="replace").splitlines() if file.exists() else []
        return "\n".join([f"--- the last lines of {file}", *text[-lines:], "---"])

    def wait_until(self, condition: Callable[[], T | None], *, timeout: float, what: str, log: str) -> T:
        """Wait until ``condition`` returns something true, and return it.

        :param timeout: seconds.
        :param what: what is waited for, for the message.
        :param log: the child whose log the message shows.
        :raises LocalAirflowError: a child ended, or the time is over.
        """
        deadline = time.monotonic() + timeout
        while not (value := condition()):
            self.check()
            if time.monotonic() > deadline:
                raise LocalAirflowError(f"waited {timeout:.0f} s in vain for {what}.\n{self.tail(log)}")
            time.sleep(0.2)
        return value

    def remove_at_end(self, folder: Path) -> None:
        """Have ``folder`` removed when everything has stopped, whatever happens to this process."""
        self._tell_guard("folder", str(folder))

    def _child(self, name: str) -> Child:
        if name not in self._children:
            raise LocalAirflowError(f"no {name} is running; there are {sorted(self._children)}")
        return self._children[name]

    def _stop(self, children: Iterable[Child], *, grace: float) -> None:
        chosen = list(children)
        guard.end_sessions({child.pid: child.stop_signal for child in chosen}, grace=grace)
        for child in chosen:
            with suppress(subprocess.TimeoutExpired):
                child.process.wait(timeout=5)
            self._children.pop(child.name, None)
            self._tell_guard("gone", str(child.pid))

    def _tell_guard(self, word: str, value: str) -> None:
        if self._guard is None or self._guard.stdin is None:
            raise LocalAirflowError("the supervisor is not running: use it in a with statement")
        self._guard.stdin.write(f"{word} {value}\n")
        self._guard.stdin.flush()

    def _dismiss_guard(self) -> None:
        if self._guard is None or self._guard.stdin is None:
            return
        with suppress(BrokenPipeError):
            self._guard.stdin.close()
        self._guard.wait(timeout=60)
        self._guard = None


def python_module(name: str, *args: str) -> list[str]:
    """The command that runs a module with the interpreter that runs this."""
    return [sys.executable, "-m", name, *args]


def family(pid: int) -> list[psutil.Process]:
    """The living processes that belong to the child ``pid``: its session and its descendants."""
    return guard.family(pid)


def inherited_environment() -> dict[str, str]:
    """This process's environment without Airflow's variables, and with no proxy for loopback."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("AIRFLOW")}
    direct = ",".join(filter(None, [env.get("NO_PROXY") or env.get("no_proxy"), "127.0.0.1", "localhost"]))
    return env | {"NO_PROXY": direct, "no_proxy": direct, "PYTHONUNBUFFERED": "1"}
