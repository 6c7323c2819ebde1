"""Contracts: from `.proto` files to what the service must know of a stream, and the check of every row against it.

Owns: compiling the `.proto` files, a stream's columns and rules, decoding and validating what producers send, and
everything that is generated from the `.proto` files (stubs, dbt sources). Does not own: storage, dedup, lateness.

Main types: `Contract` (what a stream's message declares), `LoadedContracts` (all of a folder, with what is wrong in
it), `Intake` (messages or Arrow rows in, valid rows and quarantined rows out).
"""

from ingest_service.contracts.contract import Column, Contract
from ingest_service.contracts.intake import Intake, IntakeLimits, Validated
from ingest_service.contracts.load import LoadedContracts, Problem, load_contracts

__all__ = ["Column", "Contract", "Intake", "IntakeLimits", "LoadedContracts", "Problem", "Validated", "load_contracts"]
