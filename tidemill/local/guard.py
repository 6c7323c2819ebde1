"""Ends a supervisor's processes when the supervisor itself is gone, however it went (SIGKILL, power of an OOM killer).

The supervisor starts this file as a program of its own and tells it of its sessions over stdin, a line each:

    add SESSION SIGNAL      a process was started as leader of this session; SIGNAL asks it to stop
    remove SESSION          it ended, and nothing of its session is left

End of file means that the supervisor is gone: no pipe outlives its writer. What is still on the list is then asked
to stop, and after GRACE_S seconds killed. It works wherever there are sessions (Linux, macOS), and needs no more
than the standard library, so that it starts in milliseconds.

By session, not by process group: Airflow's tasks make process groups of their own, but stay in the session.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

GRACE_S = 8.0
POLL_S = 0.05


def session_members(session: int) -> list[int]:
    """List the processes of a session, whichever their process group; zombies do not count."""
    members = []
    for pid in _all_pids():
        try:
            if os.getsid(pid) == session and not _is_zombie(pid):
                members.append(pid)
        except (ProcessLookupError, PermissionError):
            continue
    return members


def signal_session(session: int, number: int) -> None:
    """Send a signal to every process of a session."""
    for pid in session_members(session):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def kill_session(session: int) -> None:
    """Kill every process of a session, until none is left (one may fork between the look and the blow)."""
    for _ in range(100):
        if not session_members(session):
            return
        signal_session(session, signal.SIGKILL)
        time.sleep(POLL_S / 5)


def _all_pids() -> list[int]:
    proc = Path("/proc")
    if (proc / "self/stat").exists():
        return [int(name) for name in os.listdir(proc) if name.isdigit()]
    listed = subprocess.run(["/bin/ps", "-axo", "pid="], capture_output=True, text=True, check=False)
    return [int(pid) for pid in listed.stdout.split()]


def _is_zombie(pid: int) -> bool:
    try:
        # The command's name stands in brackets and may hold anything; the state is the first word behind it.
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] == b"Z"
    except (OSError, IndexError):
        return False


def main() -> None:
    """Follow the supervisor's list until it ends; then stop what is left."""
    # Ctrl-C and a closing terminal reach whole groups: the guard outlives them, since it ends by end of file.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sessions: dict[int, int] = {}
    for line in sys.stdin.buffer:
        verb, *numbers = line.split()
        if verb == b"add":
            sessions[int(numbers[0])] = int(numbers[1])
        else:
            sessions.pop(int(numbers[0]), None)
    for session, stop_signal in sessions.items():
        # The leader alone: it knows how to stop its own.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(session, stop_signal)
    deadline = time.monotonic() + GRACE_S
    # A leader stops its own before it ends; what is left when it has ended was forgotten.
    while time.monotonic() < deadline and any(session in session_members(session) for session in sessions):
        time.sleep(POLL_S)
    for session in sessions:
        kill_session(session)


if __name__ == "__main__":
    main()
