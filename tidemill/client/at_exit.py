"""The end of a program that did not close its producers: rows are still sent, for a moment, or it is said."""

from __future__ import annotations

import atexit
import logging
import weakref
from typing import Protocol

from tidemill import errors

_AT_EXIT_S = 5.0

_logger = logging.getLogger("tidemill")


class Closable(Protocol):
    """What is closed at the program's end."""

    def close(self, timeout: float | None = None) -> None:
        """Flush within `timeout` seconds, and end."""


_running: weakref.WeakSet[Closable] = weakref.WeakSet()


def close_at_exit(producer: Closable) -> None:
    """Close it at the program's end, unless it was closed by then."""
    _running.add(producer)


def was_closed(producer: Closable) -> None:
    """It need not be closed any more."""
    _running.discard(producer)


@atexit.register
def _close_all() -> None:
    for producer in list(_running):
        try:
            producer.close(_AT_EXIT_S)
        except errors.TidemillError as error:
            _logger.error("at the program's end, without close(): %s", error)
