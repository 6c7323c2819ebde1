"""Reading the contracts and the keys of a data folder."""

from __future__ import annotations

from collections.abc import Iterable

from ingest_service.access.key_file import KeyFile
from ingest_service.contracts.store import ContractStore
from ingest_service.data.check_log import LogCheck
from ingest_service.data.folder import DataFolder
from ingest_service.data.report import Report
from ingest_service.errors import ConfigError, ContractError
from ingest_service.log.records import LogSpec
from ingest_service.log.recovery import check_fits


def check_contracts(folder: DataFolder, logs: Iterable[LogCheck], report: Report) -> None:
    """Every version of every contract; the one in force must be able to read every segment of its stream's logs.

    To be called once the logs were read: a contract may be newer than rows, never older.
    """
    store = ContractStore(folder.contracts)
    in_force: dict[str, LogSpec] = {}
    for stream in store.streams():
        for version in store.versions(stream):
            try:
                in_force[stream] = store.read(stream, version).log_spec()
            except ContractError as error:
                report.damaged(folder.contracts / stream, error)
    for log in logs:
        for path, schema in log.schemas if log.place.stream in in_force else ():
            try:
                check_fits(path.name, schema, in_force[log.place.stream])
            except ContractError as error:
                report.damaged(path, f"the contract in force can't read it: {error}")
    if in_force:
        report.other.append("contracts")


def check_keys(folder: DataFolder, report: Report) -> None:
    """The file of API keys."""
    keys = KeyFile(folder.root)
    if not keys.exists():
        return
    try:
        keys.read()
    except ConfigError as error:
        report.damaged(keys.path, error)
        return
    report.other.append("keys")
