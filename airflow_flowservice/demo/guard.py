# SPDX-License-Identifier: Apache-2.0
"""Guard process that stops the children of a parent process after the parent has ended.

``python -m airflow_flowservice.demo.guard`` reads lines from its standard input. Standard input is a pipe that
only the parent process can write to. The lines are:

- ``session PID``: the parent has started the session of this leader.
- ``gone PID``: the parent has ended this session.
- ``folder PATH``: remove this folder at the end.

The pipe closes when the parent ends, even if the parent is killed. The guard then ends all remaining sessions
and removes the folders.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress

import psutil


def start() -> subprocess.Popen[str]:
    """Start a guard of the current process. Write lines to its ``stdin`` and close it to end the guard."""
    return subprocess.Popen(
        [sys.executable, "-m", __name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )


def session_processes(pid: int) -> list[psutil.Process]:
    """Return the running processes in the session with leader ``pid``, and all descendants of ``pid``."""
    members = {process.pid: process for process in psutil.process_iter() if _session_id(process.pid) == pid}
    with suppress(psutil.NoSuchProcess):
        leader = psutil.Process(pid)
        members |= {process.pid: process for process in [leader, *leader.children(recursive=True)]}
    return [process for process in members.values() if _is_running(process)]


def end_sessions(sessions: Mapping[int, int], *, grace: float) -> None:
    """Send a signal to each session's leader, and kill all remaining processes after ``grace`` seconds.

    :param sessions: the signal for each leader, by process id.
    :param grace: seconds to wait before the kill. If 0, kill all processes immediately.
    """
    members = [process for pid in sessions for process in session_processes(pid)]
    if grace > 0:
        for pid, number in sessions.items():
            _send_signal(pid, number)
        members = _wait_until_ended(members, timeout=grace)
    members += [process for pid in sessions for process in session_processes(pid)]
    for process in members:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    _wait_until_ended(members, timeout=5)


def _wait_until_ended(processes: list[psutil.Process], *, timeout: float) -> list[psutil.Process]:
    """Return the processes that still run after ``timeout`` seconds. A zombie counts as ended."""
    deadline = time.monotonic() + timeout
    while (running := [process for process in processes if _is_running(process)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return running


def _session_id(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None


def _is_running(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _send_signal(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def watch(lines: Iterable[str]) -> None:
    """Process the lines until the input closes, then end the remaining sessions and remove the folders."""
    sessions: list[int] = []
    folders: list[str] = []
    for line in lines:
        command, _, value = line.rstrip("\n").partition(" ")
        if command == "session":
            sessions.append(int(value))
        if command == "gone":
            sessions.remove(int(value))
        if command == "folder":
            folders.append(value)
    end_sessions(dict.fromkeys(sessions, signal.SIGINT), grace=3.0)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    watch(sys.stdin)
