"""Runs a command as the user `nobody` when this is root: `python unprivileged.py COMMAND…`.

PostgreSQL refuses to run as root. Instead of making a user and opening the folders on the way to the installation
for everyone, the command runs as `nobody` and, on Linux, keeps the one capability by which it may pass through
folders that only root can enter. An ordinary user's command just runs.

The process stays the same one (exec), so its supervisor sees the command's own end.
"""

from __future__ import annotations

import ctypes
import os
import sys

USER = "nobody"
_PR_SET_KEEPCAPS = 8
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE = 47, 2
_CAP_DAC_OVERRIDE = 1
_CAPABILITY_VERSION_3 = 0x20080522


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def user_id() -> tuple[int, int] | None:
    """Give user and group that the command will run as, or None when this process is not root's."""
    if os.geteuid() != 0:
        return None
    import pwd

    entry = pwd.getpwnam(USER)
    return entry.pw_uid, entry.pw_gid


def drop_root() -> None:
    """Become `nobody` for good, keeping CAP_DAC_OVERRIDE across the coming exec where Linux allows it."""
    identity = user_id()
    if identity is None:
        return
    user, group = identity
    libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
    if libc is not None:
        libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setgid(group)
    os.setuid(user)
    if libc is not None:
        # A container may withhold the capability: then the command still runs, and says itself what it cannot reach.
        bit = 1 << _CAP_DAC_OVERRIDE
        data = (_Data * 2)(_Data(bit, bit, bit), _Data(0, 0, 0))
        libc.capset(ctypes.byref(_Header(_CAPABILITY_VERSION_3, 0)), data)
        libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _CAP_DAC_OVERRIDE, 0, 0)


if __name__ == "__main__":
    drop_root()
    os.execv(sys.argv[1], sys.argv[1:])  # noqa: S606  # no shell is wanted
