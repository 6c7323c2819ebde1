"""One difference between two versions of a contract."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Change:
    """A difference. Compatible: rows in the log, those who read them and those who send them stay valid.

    field: the field's path ("price", "address.city"), empty for the message as a whole.
    message: what was, what is now and, where it breaks something, what.
    is_comment: only a comment differs, so there is nothing to put in force.
    """

    field: str
    compatible: bool
    message: str
    is_comment: bool = False


def fine(field: str, message: str) -> Change:
    """A difference that breaks nothing."""
    return Change(field, True, message)


def breaks(field: str, message: str) -> Change:
    """A difference that breaks something."""
    return Change(field, False, message)


def listed(changes: Iterable[Change]) -> str:
    """Changes in one line, for messages."""
    return "; ".join(f"{change.field}: {change.message}" if change.field else change.message for change in changes)
