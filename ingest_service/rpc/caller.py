"""Who makes the call that is being answered: known to all that its handler does, without being handed on."""

from __future__ import annotations

from collections import Counter
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol

from ingest_service.errors import PermissionDenied


class Caller(Protocol):
    """Who calls, and what they want to do."""

    def check(self, stream: str) -> None:
        """Raises PermissionDenied when this call is not theirs to make on that stream."""

    def may_see(self, stream: str) -> bool:
        """Whether the stream is any of their business in this call: lists leave out what is not."""

    def knows(self, stream: str) -> bool:
        """Whether it is in any call."""


@dataclass(frozen=True, slots=True)
class Anyone:
    """Whoever calls a service that asks for no keys."""

    def check(self, stream: str) -> None:
        """Allows everything."""

    def may_see(self, stream: str) -> bool:
        """Shows everything."""
        del stream
        return True

    def knows(self, stream: str) -> bool:
        """Shows everything."""
        return self.may_see(stream)


@dataclass(frozen=True, slots=True)
class Nobody:
    """Where a caller should be known, and is not."""

    def check(self, stream: str) -> None:
        """Refuses everything."""
        raise PermissionDenied(f"nobody is known to ask for stream {stream!r}", "a caller")

    def may_see(self, stream: str) -> bool:
        """Shows nothing."""
        del stream
        return False

    def knows(self, stream: str) -> bool:
        """Shows nothing."""
        return self.may_see(stream)


@dataclass(frozen=True, slots=True)
class Call:
    """The call that is being answered: its caller, and where its server counts refusals, by reason."""

    caller: Caller
    refusals: Counter[str]


CALL: ContextVar[Call] = ContextVar("tidemill_call")
"""Set by the server's interceptor for each call; tasks and threads that a handler starts inherit it."""


def caller(*, guarded: bool) -> Caller:
    """Whose call this is. Outside a call everything is allowed, or, where keys are asked for (`guarded`), nothing."""
    call = CALL.get(None)
    if call is not None:
        return call.caller
    return Nobody() if guarded else Anyone()


def refusals() -> Counter[str]:
    """Where refusals are counted; nowhere outside a call."""
    call = CALL.get(None)
    return Counter() if call is None else call.refusals
