"""Contracts: from `.proto` files to what the service must know of a stream, and the check of every row against it.

Owns: compiling the `.proto` files, a stream's columns and rules, which contract is in force and which changes of one
are compatible, decoding and validating what producers send, and everything that is generated from the
`.proto` files (stubs, dbt sources). Does not own: storage, dedup, lateness.

Main types: `Contract` (what a stream's message declares), `LoadedContracts` (all of a folder, with what is wrong in
it), `ContractStore` (those in force), `Intake` (messages or Arrow rows in, valid rows and quarantined rows out),
`Encoder` (rows back to messages).
"""

from ingest_service.contracts.contract import Column, Contract
from ingest_service.contracts.encode import Encoder
from ingest_service.contracts.intake import Intake, IntakeLimits, Validated
from ingest_service.contracts.load import LoadedContracts, Problem, load_contracts
from ingest_service.contracts.standing import Standing, standings
from ingest_service.contracts.store import ContractStore

__all__ = [
    "Column",
    "Contract",
    "ContractStore",
    "Encoder",
    "Intake",
    "IntakeLimits",
    "LoadedContracts",
    "Problem",
    "Standing",
    "Validated",
    "load_contracts",
    "standings",
]
