"""Runs protoc over a folder of `.proto` files, with `buf/validate/validate.proto` at hand."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from google.protobuf import descriptor_pb2, duration_pb2, field_mask_pb2, timestamp_pb2

from ingest_service.errors import ConfigError, ContractError

OPTIONS_FILE = "tidemill/v1/options.proto"
TIMEOUT_S = 60
"""protoc takes milliseconds; a run that takes this long hangs."""


def proto_files(root: Path) -> list[str]:
    """All .proto files below the root, relative to it, sorted.

    Raises ConfigError when the root is no folder.
    """
    if not root.is_dir():
        raise ConfigError(f"expected a folder with .proto files at {root}, but there is none; name it with --proto")
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*.proto"))


def compile_files(root: Path, files: Sequence[str]) -> descriptor_pb2.FileDescriptorSet:
    """Compiles `files` (relative to the root); gives them with source info, and all that they import.

    Raises ContractError with protoc's own text, one error a line: file, line, column, reason.
    """
    with tempfile.TemporaryDirectory(prefix="tidemill-protoc-") as folder:
        out = Path(folder, "out.bin")
        run_protoc(root, [f"--descriptor_set_out={out}", "--include_imports", "--include_source_info", *files])
        return descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())


def run_protoc(root: Path, arguments: Sequence[str], known: bytes | None = None) -> None:
    """Runs protoc with the root as its only own path; `known` is a FileDescriptorSet that imports resolve from.

    A process of its own: in-process, protoc writes its errors to the service's stderr, past Python.
    Raises ContractError with what protoc said.
    """
    with tempfile.TemporaryDirectory(prefix="tidemill-protoc-") as folder:
        known_file = Path(folder, "known.bin")
        known_file.write_bytes(known_files(root) if known is None else known)
        command = [sys.executable, "-P", "-m", "grpc_tools.protoc", f"--proto_path={root}"]
        command += [f"--descriptor_set_in={known_file}", *arguments]
        try:
            done = subprocess.run(
                command,
                check=False,
                capture_output=True,
                text=True,
                encoding="utf-8",
                errors="replace",
                timeout=TIMEOUT_S,
            )
        except subprocess.TimeoutExpired as error:
            raise ContractError(f"protoc did not end within {TIMEOUT_S} s over the .proto files in {root}") from error
    if done.returncode != 0:
        said = done.stderr.strip() or done.stdout.strip() or f"protoc ended with status {done.returncode}"
        raise ContractError(said.replace(f"{root.as_posix()}/", ""))


def known_files(root: Path) -> bytes:
    """The files that contracts import but need not bring along, as a serialized FileDescriptorSet.

    `buf/validate/validate.proto` need not be vendored: protovalidate's generated module carries its descriptor.
    """
    from protovalidate._gen.buf.validate import validate_pb

    known = descriptor_pb2.FileDescriptorSet()
    for module in (descriptor_pb2, duration_pb2, timestamp_pb2, field_mask_pb2):
        module.DESCRIPTOR.CopyToProto(known.file.add())
    known.file.add().ParseFromString(validate_pb._DESC.proto.to_binary())
    if not (root / OPTIONS_FILE).exists():
        # A folder of contracts outside this repository. Not at the top: codegen makes this very stub.
        from tidemill.v1 import options_pb2

        options_pb2.DESCRIPTOR.CopyToProto(known.file.add())
    return known.SerializeToString()
