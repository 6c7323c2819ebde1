"""What the service says of a changed contract, in Python's own types."""

from __future__ import annotations

from dataclasses import dataclass

from tidemill.v1 import streams_pb2


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
