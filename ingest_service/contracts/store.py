"""The contracts in force, kept in the data folder: what was accepted holds, whatever the folder of `.proto` files says.

    contracts/<stream>/<version>.binpb     a serialized google.protobuf.FileDescriptorSet: the file and all that it
                                           imports, imports first, with comments; the highest version is in force

A version is written once, as a whole or not at all, and never again.
"""

from __future__ import annotations

from pathlib import Path

from google.protobuf import descriptor_pb2
from google.protobuf.message import DecodeError

from ingest_service.contracts.contract import Contract
from ingest_service.contracts.declare import declared_contracts
from ingest_service.errors import ContractError, StorageError
from ingest_service.log.files import Files, OsFiles

SUFFIX = ".binpb"


class ContractStore:
    """The accepted versions of every stream's contract, in a folder that is made when the first is kept.

    Keeping is for one thread at a time; reading is for any.
    """

    def __init__(self, folder: Path, files: Files | None = None) -> None:
        self._folder = folder
        self._files = files or OsFiles()

    def streams(self) -> list[str]:
        """The streams that have a contract here, by name."""
        return [name for name in self._names(self._folder) if self.versions(name)]

    def versions(self, stream: str) -> list[int]:
        """The versions of a stream's contract, oldest first."""
        stems = [name.removesuffix(SUFFIX) for name in self._names(self._folder / stream) if name.endswith(SUFFIX)]
        return sorted(int(stem) for stem in stems if stem.isdecimal())

    def in_force(self, stream: str) -> Contract | None:
        """The contract in force; None where none was accepted yet. Raises ContractError when it can't be read."""
        versions = self.versions(stream)
        return self.read(stream, versions[-1]) if versions else None

    def read(self, stream: str, version: int) -> Contract:
        """One version of a stream's contract.

        Raises:
            ContractError: it can't be read, or the file holds something else.
        """
        path = self._path(stream, version)
        try:
            compiled = descriptor_pb2.FileDescriptorSet.FromString(path.read_bytes())
            for contract in declared_contracts(compiled, compiled.file[-1].name):
                if isinstance(contract, Contract) and (contract.stream, contract.version) == (stream, version):
                    return contract
        except (OSError, DecodeError, IndexError, TypeError, KeyError) as error:
            reason = f"can't be read: {error}"
        else:
            reason = "holds no such contract"
        raise ContractError(
            f"stream {stream!r}: {path}, the contract in force, {reason}. Restore it from a backup, or move it away to "
            "take the one in the folder of .proto files"
        )

    def keep(self, contract: Contract) -> None:
        """Keep a version, durably: from now on it is in force. Nothing happens where this version is kept already.

        Raises:
            StorageError: it can't be written.
        """
        path = self._path(contract.stream, contract.version)
        try:
            if path.exists():
                return
            self._files.make_folder(path.parent)
            self._files.replace(path, contract.source)
        except OSError as error:
            raise StorageError(
                f"stream {contract.stream!r}: the contract can't be kept in {path}: {error.strerror or error}; the one "
                "before stays in force. Apply it again once the cause is gone"
            ) from error

    def _path(self, stream: str, version: int) -> Path:
        return self._folder / stream / f"{version}{SUFFIX}"

    def _names(self, folder: Path) -> list[str]:
        return self._files.list_folder(folder) if folder.is_dir() else []
