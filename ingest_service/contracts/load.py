"""Loads every contract below a folder of `.proto` files. What is wrong with one does not stop the others."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from google.protobuf import descriptor_pb2

from ingest_service.contracts.contract import Contract
from ingest_service.contracts.declare import declared_contracts
from ingest_service.contracts.protoc import compile_files, proto_files
from ingest_service.errors import ContractError


class Problem(NamedTuple):
    """A file that is no contract although it should be: the file below the root, and what to do about it.

    stream: the stream that it claims, where that much could be read; else empty.
    """

    file: str
    text: str
    stream: str = ""


@dataclass(frozen=True, slots=True)
class LoadedContracts:
    """All contracts of a folder by stream name, and what is wrong with those that did not load, by file."""

    contracts: dict[str, Contract]
    problems: tuple[Problem, ...]


def load_contracts(proto_root: Path) -> LoadedContracts:
    """Compiles every `.proto` file below the root and reads its contracts.

    Raises ConfigError when the root is no folder. Everything that is wrong with a file is a problem in the result.
    """
    files = proto_files(proto_root)
    found: list[Contract] = []
    problems: list[Problem] = []
    for file, compiled in _compile(proto_root, files, problems):
        for contract in declared_contracts(compiled, file):
            if isinstance(contract, Contract):
                found.append(contract)
            else:
                problems.append(Problem(file, str(contract), contract.stream))
    return LoadedContracts(_by_stream(found, problems), tuple(sorted(problems)))


def _compile(
    root: Path, files: list[str], problems: list[Problem]
) -> list[tuple[str, descriptor_pb2.FileDescriptorSet]]:
    """Each file that compiles, with all that it imports (imports first)."""
    if not files:
        return []
    try:
        everything = compile_files(root, files)
    except ContractError:
        # protoc stops at the first broken file: compile one by one to keep the good ones.
        return _compile_each(root, files, problems)
    return [(file, _closure(everything, file)) for file in files]


def _compile_each(
    root: Path, files: list[str], problems: list[Problem]
) -> list[tuple[str, descriptor_pb2.FileDescriptorSet]]:
    compiled = []
    for file in files:
        try:
            compiled.append((file, compile_files(root, [file])))
        except ContractError as error:
            problems.append(Problem(file, f"{error}\nCorrect {file} and start the service again."))
    return compiled


def _closure(everything: descriptor_pb2.FileDescriptorSet, file: str) -> descriptor_pb2.FileDescriptorSet:
    """The part of a descriptor set that one file needs, in the same order (imports first)."""
    by_name = {each.name: each for each in everything.file}
    needed, waiting = {file}, [file]
    while waiting:
        new = set(by_name[waiting.pop()].dependency) - needed
        needed |= new
        waiting += sorted(new)
    return descriptor_pb2.FileDescriptorSet(file=[each for each in everything.file if each.name in needed])


def _by_stream(found: list[Contract], problems: list[Problem]) -> dict[str, Contract]:
    """Contracts by stream; where several claim one name, none of them gets it, whatever their order."""
    claims: dict[str, list[Contract]] = {}
    for contract in found:
        claims.setdefault(contract.stream, []).append(contract)
    for stream, claimed in claims.items():
        for contract in claimed if len(claimed) > 1 else ():
            others = ", ".join(f"{c.message_type} ({c.file})" for c in claimed if c is not contract)
            problems.append(
                Problem(
                    contract.file,
                    f"{contract.file}: {contract.message_type} claims the stream name {stream!r}, and so does "
                    f"{others}; a stream has one contract: rename one, or take its (tidemill.v1.stream) option away",
                    stream,
                )
            )
    return {stream: claimed[0] for stream, claimed in sorted(claims.items()) if len(claimed) == 1}
