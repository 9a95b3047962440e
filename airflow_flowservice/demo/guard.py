"""A process that ends the children of another one, once that other one is gone.

``python -m airflow_flowservice.demo.guard`` reads lines from its standard input, a pipe that only the
guarded process can write: ``session PID``, ``gone PID``, ``folder PATH``. The pipe closes when that
process ends, in whatever way. Then the guard ends the sessions that are left and removes the folders.
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
    """Start a guard of the current process; write to its ``stdin``, and close that to let it finish."""
    return subprocess.Popen(
        [sys.executable, "-m", __name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )


def family(pid: int) -> list[psutil.Process]:
    """The living processes of the session that ``pid`` leads, and all descendants of ``pid``."""
    members = {process.pid: process for process in psutil.process_iter() if _session(process.pid) == pid}
    with suppress(psutil.NoSuchProcess):
        leader = psutil.Process(pid)
        members |= {process.pid: process for process in [leader, *leader.children(recursive=True)]}
    return [process for process in members.values() if _alive(process)]


def end_sessions(sessions: Mapping[int, int], *, grace: float) -> None:
    """Send each session's leader its signal; kill what is left of the sessions after ``grace`` seconds.

    :param sessions: the signal for each leader's pid.
    """
    members = [process for pid in sessions for process in family(pid)]
    if grace > 0:
        for pid, number in sessions.items():
            _send(pid, number)
        members = _wait_for(members, timeout=grace)
    members += [process for pid in sessions for process in family(pid)]
    for process in members:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    _wait_for(members, timeout=5)


def _wait_for(processes: list[psutil.Process], *, timeout: float) -> list[psutil.Process]:
    """Those that live on after ``timeout`` seconds. A zombie is dead, whoever has yet to collect it."""
    deadline = time.monotonic() + timeout
    while (living := [process for process in processes if _alive(process)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return living


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _send(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def main(lines: Iterable[str]) -> None:
    """Follow the lines until they end, then end and remove what they named."""
    sessions: list[int] = []
    folders: list[str] = []
    for line in lines:
        word, _, value = line.rstrip("\n").partition(" ")
        if word == "session":
            sessions.append(int(value))
        if word == "gone":
            sessions.remove(int(value))
        if word == "folder":
            folders.append(value)
    end_sessions(dict.fromkeys(sessions, signal.SIGINT), grace=3.0)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    main(sys.stdin)
