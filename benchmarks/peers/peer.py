"""What a benchmark needs of a peer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


class PeerMissing(Exception):
    """The peer's program can't be had on this machine; the text says what is missing."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A peer that is running.

    prepare: makes of serialized order lines what its client takes; not timed, as serializing ours is not.
    send: sends that, and returns once all rows are acknowledged.
    """

    prepare: Callable[[list[bytes]], Any]
    send: Callable[[Any], None]
