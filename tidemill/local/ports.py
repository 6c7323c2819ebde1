"""Ports on the loopback interface: a free one, or the wanted one if nobody has it."""

from __future__ import annotations

import errno
import socket

from tidemill.local.errors import PortBusy

LOOPBACK = "127.0.0.1"


def free_port(host: str = LOOPBACK) -> int:
    """Give a port that nothing listens on right now. Another process may still take it first: bind it soon."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def claim_port(wanted: int | None, *, what: str, option: str, host: str = LOOPBACK) -> int:
    """Give the wanted port, or a free one for None or 0.

    what, option: who needs the port, and the command's option that names another one, for the message.
    Raises PortBusy when the wanted port is in use or may not be used.
    """
    if not wanted:
        return free_port(host)
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: a port whose last connections are only winding down is not in use.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, wanted))
        except OSError as error:
            came = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
            raise PortBusy(
                f"port {wanted} on {host}, wanted for {what}, {came}: stop what uses it, or choose another "
                f"with {option} (0 takes any free one)",
                wanted,
            ) from error
        except OverflowError as error:
            raise PortBusy(f"{option} {wanted}: a port is a number from 1 to 65535, or 0 for any", wanted) from error
    return wanted
