"""Generates everything that a project makes from its `proto/`: `tidemill contract generate [--check]`.

    tidemill/v1/*_pb2.py, .pyi, _pb2_grpc.py     stubs of the API, where proto/ has it; _grpc for files with services
    <domain>/v1/*_pb2.py, .pyi, __init__.py      stubs of event contracts, without their rules and options, so that a
                                                 light client (grpcio and protobuf) can import them; an
                                                 __init__.py that is there stays as it is
    dbt_project/models/sources/<stream>.yml      dbt sources, with the contracts' comments

With --check nothing is written: what differs is named, and the exit status is 1. Runs as
`python -m ingest_service.contracts.codegen`, in any project.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from ingest_service.contracts.dbt_sources import HEADER, dbt_source
from ingest_service.contracts.light import light_files
from ingest_service.contracts.load import load_contracts
from ingest_service.contracts.protoc import compile_files, proto_files, run_protoc
from ingest_service.errors import ContractError, IngestError

API_FOLDER = "tidemill"
SOURCES_FOLDER = "dbt_project/models/sources"


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; gives the exit status: 0 done or up to date, 1 out of date or a contract is wrong."""
    parser = argparse.ArgumentParser(prog="codegen", description="Generate everything that is made from proto/.")
    parser.add_argument("--check", action="store_true", help="write nothing; name what is out of date, and exit with 1")
    parser.add_argument("--root", type=Path, default=Path.cwd(), help="the project's folder (default: the current one)")
    parser.add_argument("--json", action="store_true", help="print one JSON object: files (a count), changes by path")
    options = parser.parse_args(arguments)
    try:
        wanted = generate(options.root / "proto")
    except IngestError as error:
        _say(json.dumps({"problem": str(error)}) if options.json else f"Nothing was generated: {error}")
        return 1
    changes = differences(options.root, wanted)
    if not options.check:
        _write(options.root, wanted, changes)
    if options.json:
        _say(json.dumps({"files": len(wanted), "changes": changes}))
    elif options.check:
        for path, change in changes.items():
            _say(f"{path}: {change}")
        if changes:
            _say("What is generated from proto/ is out of date: run `make proto` and commit what it changes.")
    else:
        _say(f"{len(wanted)} files generated, {len(changes)} changed.")
    return 1 if changes and options.check else 0


def generate(proto_root: Path) -> dict[str, bytes]:
    """Every generated file: path below the project's folder, and content.

    Raises ContractError when a file does not compile or a contract is wrong, ConfigError when there is no folder.
    """
    loaded = load_contracts(proto_root)
    if loaded.problems:
        raise ContractError("\n".join(problem.text for problem in loaded.problems))
    files = proto_files(proto_root)
    api = [file for file in files if file.startswith(f"{API_FOLDER}/")]
    events = [file for file in files if file not in api]
    wanted = _stubs(proto_root, api, events)
    for package in _packages(events):
        wanted[f"{package}/__init__.py"] = f'"""Stubs generated from proto/{package} by `make proto`."""\n'.encode()
    for contract in loaded.contracts.values():
        wanted[f"{SOURCES_FOLDER}/{contract.stream}.yml"] = dbt_source(contract).encode()
    return dict(sorted(wanted.items()))


def differences(root: Path, wanted: Mapping[str, bytes]) -> dict[str, str]:
    """What stands between the project's files and the wanted ones, by path: missing, different, or no longer made."""
    changes = {}
    for path, content in wanted.items():
        file = root / path
        if not file.exists():
            changes[path] = "missing"
        elif file.name != "__init__.py" and file.read_bytes() != content:
            changes[path] = "differs from what proto/ gives"
    for path in _generated_before(root, wanted):
        if path not in wanted:
            changes[path] = "no longer generated from proto/"
    return dict(sorted(changes.items()))


def _stubs(proto_root: Path, api: list[str], events: list[str]) -> dict[str, bytes]:
    stubs: dict[str, bytes] = {}
    compiled = compile_files(proto_root, [*api, *events])
    with_services = [file.name for file in compiled.file if file.name in api and file.service]
    with tempfile.TemporaryDirectory(prefix="tidemill-codegen-") as folder:
        out, nothing = Path(folder, "out"), Path(folder, "nothing")
        out.mkdir()
        nothing.mkdir()
        if api:
            run_protoc(proto_root, [f"--python_out={out}", f"--pyi_out={out}", *api])
        if with_services:
            run_protoc(proto_root, [f"--grpc_python_out={out}", *with_services])
        if events:
            # From the stripped files alone: the folder of sources is an empty one.
            light = light_files(compiled, events).SerializeToString(deterministic=True)
            run_protoc(nothing, [f"--python_out={out}", f"--pyi_out={out}", *events], known=light)
        for stub in out.rglob("*_pb2*.py*"):
            stubs[stub.relative_to(out).as_posix()] = stub.read_bytes()
    return stubs


def _packages(events: Iterable[str]) -> list[str]:
    """Every folder, from the top, that has to be a package: retail, retail/v1."""
    parents = {parent.as_posix() for file in events for parent in Path(file).parents}
    return sorted(parents - {"."})


def _generated_before(root: Path, wanted: Mapping[str, bytes]) -> list[str]:
    """Generated files that are there: stubs in the packages that proto/ has, and dbt sources with our header."""
    packages = {path.split("/")[0] for path in wanted if path.endswith(".py")}
    stubs = [file for package in sorted(packages) for file in (root / package).rglob("*_pb2*.py*") if file.is_file()]
    found = [file for file in stubs if "__pycache__" not in file.parts and _is_ours(root, file)]
    mark = HEADER.partition("{")[0].encode()
    found += [file for file in (root / SOURCES_FOLDER).glob("*.yml") if file.read_bytes().startswith(mark)]
    return [path.relative_to(root).as_posix() for path in found]


def _is_ours(root: Path, stub: Path) -> bool:
    """Whether a stub was made from proto/: a package may have others, which somebody made from elsewhere."""
    folder = stub.parent.relative_to(root)
    if (root / "proto" / folder).is_dir():
        return True
    name = stub.name.partition("_pb2")[0]
    made = stub.with_name(f"{name}_pb2.py")
    return made.is_file() and f"# source: {folder.as_posix()}/{name}.proto\n".encode() in made.read_bytes()


def _write(root: Path, wanted: Mapping[str, bytes], changes: Iterable[str]) -> None:
    for path in changes:
        file = root / path
        if path in wanted:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(wanted[path])
        else:
            file.unlink()


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main())
