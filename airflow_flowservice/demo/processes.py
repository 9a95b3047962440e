# SPDX-License-Identifier: Apache-2.0
"""Child processes that end with the process that started them.

Each child is the leader of a separate session. Ctrl-C in the terminal therefore reaches only the parent, and
the session identifies all processes that a child has started. A guard process
(:mod:`airflow_flowservice.demo.guard`) watches the parent through a pipe. After the parent has ended, the guard
ends all remaining children.
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

from airflow_flowservice.demo import guard

_T = TypeVar("_T")


class LocalAirflowError(RuntimeError):
    """Error of a process of the local Airflow. The message contains the last lines of its log."""


class ProcessUser(TypedDict, total=False):
    """Arguments of :mod:`subprocess` for the user of a child. If empty, the child runs as the parent's user."""

    user: int
    group: int
    extra_groups: list[int]


@dataclass(frozen=True)
class Child:
    """A started process, with its name, its log file and the signal that stops it."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    stop_signal: signal.Signals

    @property
    def pid(self) -> int:
        """Return the process id, which is also the id of its session."""
        return self.process.pid

    @property
    def running(self) -> bool:
        """Return whether the process is still running."""
        return self.process.poll() is None


class Supervisor:
    """Start child processes, detect unexpected ends, and stop all children at the end.

    :param log_folder: folder of the children's output files ``<name>.log``.

    Use it as a context manager. Folders given to :meth:`remove_at_end` are removed at the end, even if this
    process is killed.
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
            sigterm_children = [child for child in self._children.values() if child.stop_signal is signal.SIGTERM]
            self._stop(sigterm_children, grace=2.0)
            self._stop(self._children.values(), grace=10.0)
        finally:
            self._end_guard()

    @property
    def children(self) -> Mapping[str, Child]:
        """Return the children by name, without killed and stopped children."""
        return dict(self._children)

    def start(
        self,
        name: str,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        user: ProcessUser | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> Child:
        """Start the command ``argv`` in a separate session.

        :param name: name of the child; unique among the running children.
        :param user: the user of the process. Default: the user of this process.
        :param stop_signal: signal that stops the process. Children with ``SIGTERM`` are stopped first.
        :raises LocalAirflowError: a child with this name is already running.
        """
        if name in self._children:
            raise LocalAirflowError(f"The process {name} is already running (pid {self._children[name].pid}).")
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
                **(user or ProcessUser()),
            )
        child = Child(name=name, process=process, log=log, stop_signal=stop_signal)
        self._children[name] = child
        self._send_to_guard("session", str(process.pid))
        return child

    def stop(self, name: str, *, grace: float = 5.0) -> None:
        """Send a child its stop signal, and kill its remaining processes after ``grace`` seconds."""
        self._stop([self._child(name)], grace=grace)

    def kill(self, name: str) -> None:
        """Kill a child and all processes that it has started with ``SIGKILL``."""
        self._stop([self._child(name)], grace=0.0)

    def check(self) -> None:
        """Raise :class:`LocalAirflowError` if a child has ended unexpectedly."""
        for child in self._children.values():
            if not child.running:
                raise LocalAirflowError(
                    f"The process {child.name} ended with status {child.process.returncode}.\n{self.tail(child.name)}"
                )

    def log_file(self, name: str) -> Path:
        """Return the file with the output of the child ``name``."""
        return self._log_folder / f"{name}.log"

    def tail(self, name: str, *, lines: int = 40) -> str:
        """Return the last lines of a child's output, with a heading that contains the file name."""
        file = self.log_file(name)
        text = file.read_text(errors="replace").splitlines() if file.exists() else []
        return "\n".join([f"--- Last lines of {file}:", *text[-lines:], "---"])

    def wait_until(self, condition: Callable[[], _T | None], *, timeout: float, what: str, log: str) -> _T:
        """Wait until ``condition`` returns a true value, and return the value.

        :param timeout: seconds.
        :param what: description of the expected event, for the error message.
        :param log: name of the child; the error message contains the end of its log.
        :raises LocalAirflowError: a child has ended, or the timeout is over.
        """
        deadline = time.monotonic() + timeout
        while not (value := condition()):
            self.check()
            if time.monotonic() > deadline:
                raise LocalAirflowError(f"Timed out after {timeout:.0f} s while waiting for {what}.\n{self.tail(log)}")
            time.sleep(0.2)
        return value

    def remove_at_end(self, folder: Path) -> None:
        """Remove ``folder`` after all children have stopped, even if this process is killed."""
        self._send_to_guard("folder", str(folder))

    def _child(self, name: str) -> Child:
        if name not in self._children:
            raise LocalAirflowError(f"There is no process {name}. Running processes: {sorted(self._children)}.")
        return self._children[name]

    def _stop(self, children: Iterable[Child], *, grace: float) -> None:
        children = list(children)
        guard.end_sessions({child.pid: child.stop_signal for child in children}, grace=grace)
        for child in children:
            with suppress(subprocess.TimeoutExpired):
                child.process.wait(timeout=5)
            self._children.pop(child.name, None)
            self._send_to_guard("gone", str(child.pid))

    def _send_to_guard(self, command: str, value: str) -> None:
        if self._guard is None or self._guard.stdin is None:
            raise LocalAirflowError("The supervisor is not running. Use it in a with statement.")
        self._guard.stdin.write(f"{command} {value}\n")
        self._guard.stdin.flush()

    def _end_guard(self) -> None:
        if self._guard is None or self._guard.stdin is None:
            return
        with suppress(BrokenPipeError):
            self._guard.stdin.close()
        self._guard.wait(timeout=60)
        self._guard = None


def python_module(name: str, *args: str) -> list[str]:
    """Return the command that runs a module with the current Python interpreter."""
    return [sys.executable, "-m", name, *args]


def inherited_environment() -> dict[str, str]:
    """Return this process's environment without ``AIRFLOW*`` variables and without a proxy for loopback."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("AIRFLOW")}
    direct = ",".join(filter(None, [env.get("NO_PROXY") or env.get("no_proxy"), "127.0.0.1", "localhost"]))
    return env | {"NO_PROXY": direct, "no_proxy": direct, "PYTHONUNBUFFERED": "1"}
