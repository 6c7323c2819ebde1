"""What the servicers need of the service's parts."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping

from ingest_service.contracts import Contract, Intake
from ingest_service.contracts.change import Change
from ingest_service.contracts.compare import compare
from ingest_service.contracts.standing import check_change
from ingest_service.contracts.store import ContractStore
from ingest_service.errors import ContractError, IngestError, UnknownStream
from ingest_service.lake import LakeExporter, WholeLog
from ingest_service.log import Log
from ingest_service.rpc.caller import caller

log = logging.getLogger(__name__)


class StreamParts:
    """One stream: the contract in force with the intake that validates by it, its log, and its way into the lake.

    whole: the log and, for what retention has dropped from it, the lake. refusal: why the stream takes no events; its
    rows can be read all the same. Thread-safe. A changed contract takes the place of the one before between two
    batches: ask for `intake` anew for each.
    """

    def __init__(
        self,
        contract: Contract,
        log: Log,
        lake: LakeExporter,
        whole: WholeLog,
        contracts: ContractStore,
        refusal: ContractError | None = None,
    ) -> None:
        self.contract = contract
        self.log = log
        self.lake = lake
        self.whole = whole
        self.refusal = refusal
        self._intake = Intake(contract)
        self._contracts = contracts
        self._applying = threading.Lock()

    @property
    def intake(self) -> Intake:
        """What checks the next batch. Raises ContractError while the stream takes no events."""
        if self.refusal is not None:
            # One error for all: each caller must not add its own way here to it.
            raise self.refusal.with_traceback(None)
        return self._intake

    @property
    def error(self) -> str:
        """Why the stream takes no events; empty while it does."""
        return "" if self.refusal is None else str(self.refusal)

    def compare(self, contract: Contract) -> tuple[Change, ...]:
        """What is different in a contract from the one in force."""
        return compare(self.contract, contract)

    def apply(self, contract: Contract) -> bool:
        """Put a changed contract in force; False where it changes nothing but comments.

        In this order: 1 keep it: a restart goes on from there; 2 the log begins a segment by it; 3 batches are checked
        by it; 4 the lake gets its columns. A stream that took no events takes them again.

        Raises:
            IncompatibleContract: with all that it breaks; nothing happened.
            StorageError: it could not be kept, or the log is being closed.
        """
        with self._applying:
            changes = self.compare(contract)
            check_change(contract.stream, changes)
            if self.refusal is None and all(change.is_comment for change in changes):
                return False
            intake = Intake(contract)
            self._contracts.keep(contract)  # 1
            self.log.apply_spec(contract.log_spec())  # 2
            self.contract, self._intake, self.refusal = contract, intake, None  # 3
            self._widen_lake()  # 4
            return True

    def _widen_lake(self) -> None:
        try:
            self.lake.take_columns()
        except IngestError as error:
            log.warning(
                "stream %s: the lake gets the new columns with the next export: %s", self.contract.stream, error
            )


class Streams:
    """The streams of the service, by name, for the caller of the call that is being answered.

    Every servicer gets its streams from here, so none can forget to ask whether the caller may have them. `guarded`:
    without a known caller (outside a call, or in a thread that lost it) nothing is allowed.
    """

    def __init__(
        self,
        parts: Mapping[str, StreamParts],
        *,
        refused: Mapping[str, ContractError] | None = None,
        guarded: bool = False,
    ) -> None:
        """`refused`: streams that could not be opened because of their contracts, with the reason."""
        self._parts = dict(parts)
        self._refused = dict(refused or {})
        self._guarded = guarded

    def __getitem__(self, name: str) -> StreamParts:
        """The stream's parts.

        Raises:
            UnknownStream: there is none of that name.
            ContractError: it could not be opened.
            PermissionDenied: the caller's key does not allow this call on it.
        """
        caller(guarded=self._guarded).check(name)
        try:
            return self._parts[name]
        except KeyError:
            if name in self._refused:
                raise self._refused[name].with_traceback(None) from None
            raise UnknownStream(name, list(self._parts)) from None

    def items(self) -> Iterable[tuple[str, StreamParts]]:
        """Names and parts of the streams that the caller may see, by name."""
        known = caller(guarded=self._guarded)
        return [(name, parts) for name, parts in sorted(self._parts.items()) if known.may_see(name)]

    def refused(self) -> Iterable[tuple[str, ContractError]]:
        """The streams that the caller may see and that could not be opened, by name, and why."""
        known = caller(guarded=self._guarded)
        return [(name, error) for name, error in sorted(self._refused.items()) if known.may_see(name)]
