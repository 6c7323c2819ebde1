"""What the service says of changed contracts and views, in Python's own types."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from tidemill.v1 import streams_pb2, views_pb2


@dataclass(frozen=True, slots=True)
class ContractChange:
    """One difference between two versions of a contract; `field` is empty for the message as a whole.

    compatible: rows in the log, those who read them and those who send them stay valid.
    """

    field: str
    compatible: bool
    message: str


@dataclass(frozen=True, slots=True)
class AppliedContract:
    """What a contract changes. version: the one in force now; applied: whether that is due to this call."""

    stream: str
    version: int
    applied: bool
    changes: tuple[ContractChange, ...]

    @property
    def compatible(self) -> bool:
        """Whether nothing breaks."""
        return all(change.compatible for change in self.changes)


def to_applied(contract: streams_pb2.AppliedContract) -> AppliedContract:
    """A contract's changes as the service tells them."""
    changes = (ContractChange(each.field, each.compatible, each.message) for each in contract.changes)
    return AppliedContract(contract.stream, contract.version, contract.applied, tuple(changes))


class DefinitionChange(StrEnum):
    """What a manifest means for a live view.

    ADDED: there was none of that name. CHANGED: it has another definition, and is rebuilt while the old one serves.
    SAME: it has not changed; if it had stopped, it is tried again. REMOVED: it is no longer among the models. REFUSED:
    its model can't be a live view; what served under this name goes on.
    """

    ADDED = "added"
    CHANGED = "changed"
    SAME = "same"
    REMOVED = "removed"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class AppliedView:
    """What became of one live view, or would become of it. problem: why its model was refused, or ""."""

    view: str
    change: DefinitionChange
    problem: str


_CHANGES = {
    views_pb2.AppliedView.CHANGE_ADDED: DefinitionChange.ADDED,
    views_pb2.AppliedView.CHANGE_CHANGED: DefinitionChange.CHANGED,
    views_pb2.AppliedView.CHANGE_SAME: DefinitionChange.SAME,
    views_pb2.AppliedView.CHANGE_REMOVED: DefinitionChange.REMOVED,
    views_pb2.AppliedView.CHANGE_REFUSED: DefinitionChange.REFUSED,
}


def to_applied_view(applied: views_pb2.AppliedView) -> AppliedView:
    """What became of a view as the service tells it."""
    return AppliedView(applied.view, _CHANGES[applied.change], applied.problem)
