"""With which contract each stream starts: the folder of `.proto` files offers, the store says what is in force."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from ingest_service.contracts.change import Change, listed
from ingest_service.contracts.compare import compare
from ingest_service.contracts.contract import Contract
from ingest_service.contracts.load import LoadedContracts
from ingest_service.contracts.store import ContractStore
from ingest_service.errors import Breach, ContractError, IncompatibleContract

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Standing:
    """What a stream starts with.

    contract: the one that is in force from this start on; None where there is none to be used.
    refusal: why the stream takes no events; None where it does. Rows below the contract in force stay readable.
    """

    contract: Contract | None
    refusal: ContractError | None = None


def standings(loaded: LoadedContracts, store: ContractStore) -> dict[str, Standing]:
    """What each stream starts with, by name: those of the folder and those of the store.

    Nothing is written: whoever opens a stream keeps its contract once the log has taken it.
    """
    found: dict[str, Standing] = {}
    for stream in sorted({*loaded.contracts, *store.streams(), *(each.stream for each in loaded.problems)} - {""}):
        try:
            found[stream] = _standing(stream, loaded, store)
        except ContractError as error:
            found[stream] = Standing(None, error)
    return found


def check_change(stream: str, changes: tuple[Change, ...]) -> None:
    """Raises IncompatibleContract with all that breaks, where anything does."""
    broken = [Breach(change.field, change.message) for change in changes if not change.compatible]
    if broken:
        raise IncompatibleContract(stream, broken)


def _standing(stream: str, loaded: LoadedContracts, store: ContractStore) -> Standing:
    held = store.in_force(stream)
    for problem in loaded.problems:
        of_its_file = not problem.stream and held is not None and problem.file == held.file
        if problem.stream == stream or of_its_file:
            return Standing(held, ContractError(problem.text, stream))
    offered = loaded.contracts.get(stream)
    if offered is None or held is None:
        if offered is None:
            log.info("stream %s: no file of the folder declares it; its contract in force stays", stream)
        return Standing(offered or held)
    changes = compare(held, offered)
    if offered.version < held.version and _is_earlier(offered, store):
        log.warning(
            "stream %s: the folder has version %d of its contract, version %d is in force and stays: bring the folder "
            "up to date", stream, offered.version, held.version,
        )  # fmt: skip
        return Standing(held)
    try:
        check_change(stream, changes)
    except IncompatibleContract as error:
        return Standing(held, error)
    if changes:
        log.info("stream %s: its contract changes: %s", stream, listed(changes))
    return Standing(offered)


def _is_earlier(offered: Contract, store: ContractStore) -> bool:
    """Whether this contract was in force before: then the folder is merely behind."""
    if offered.version not in store.versions(offered.stream):
        return False
    return all(change.is_comment for change in compare(store.read(offered.stream, offered.version), offered))
