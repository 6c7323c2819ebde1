"""Contracts before they are applied: `python -m ingest_service.contracts.check`.

    --proto DIR      the folder of the contracts
    --against REV    compares the folder's contracts with those that it had in a git revision; needs no service
    --describe       tells what a service has to be sent to compare or apply them, and their dbt sources

Says one JSON object a line: of each contract, and of each file that is none although it should be (`problem`). The
exit status is 1 where anything breaks or a file is wrong. `tidemill contract` shows it to people.
"""

from __future__ import annotations

import argparse
import base64
import dataclasses
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ingest_service.contracts.change import Change, breaks
from ingest_service.contracts.compare import compare
from ingest_service.contracts.contract import Contract
from ingest_service.contracts.dbt_sources import dbt_source
from ingest_service.contracts.load import LoadedContracts, load_contracts
from ingest_service.contracts.revision import folder_at
from ingest_service.errors import IngestError

Line = dict[str, Any]


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; gives the exit status."""
    parser = argparse.ArgumentParser(prog="check", description="Tell of contracts before they are applied.")
    parser.add_argument("--proto", type=Path, default=Path("proto"), help="folder of the contracts (default: proto)")
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--against", metavar="REV", help="compare with the folder in this git revision")
    how.add_argument("--describe", action="store_true", help="tell what a service has to be sent, and the dbt sources")
    options = parser.parse_args(arguments)
    try:
        loaded = load_contracts(options.proto)
        lines = [{"file": problem.file, "problem": problem.text} for problem in loaded.problems]
        lines += described(loaded) if options.describe else against(loaded, options.proto, options.against)
    except IngestError as error:
        sys.stderr.write(f"tidemill: {error}\n")
        return 1
    for line in lines:
        sys.stdout.write(json.dumps(line, ensure_ascii=False) + "\n")
    return 0 if all(line.get("compatible", "problem" not in line) for line in lines) else 1


def described(loaded: LoadedContracts) -> Iterator[Line]:
    """Each contract: its descriptors (base64 of a FileDescriptorSet, with comments) and its dbt source."""
    for contract in loaded.contracts.values():
        yield {
            "stream": contract.stream,
            "file": contract.file,
            "message_type": contract.message_type,
            "version": contract.version,
            "descriptors": base64.b64encode(contract.source).decode(),
            "dbt_source": dbt_source(contract),
        }


def against(loaded: LoadedContracts, proto: Path, revision: str) -> Iterator[Line]:
    """What each contract changes since a git revision; those that it had and that are gone come, too."""
    with folder_at(proto, revision) as folder:
        before = load_contracts(folder).contracts
    unreadable = {problem.file for problem in loaded.problems}
    for stream in sorted(before.keys() | loaded.contracts.keys()):
        if stream in loaded.contracts or before[stream].file not in unreadable:
            yield compared(stream, before, loaded.contracts)


def compared(stream: str, before: Mapping[str, Contract], after: Mapping[str, Contract]) -> Line:
    """One stream's changes. A new stream breaks nothing; one that is gone breaks all that reads it."""
    old, new = before.get(stream), after.get(stream)
    changes: tuple[Change, ...] = ()
    if new is None:
        changes = (breaks("", "no file declares it any more: producers, dbt models and readers may use it"),)
    elif old is not None:
        changes = compare(old, new)
    return {
        "stream": stream,
        "version_before": old.version if old else None,
        "version": new.version if new else None,
        "compatible": all(change.compatible for change in changes),
        "changes": [
            {name: value for name, value in dataclasses.asdict(change).items() if name != "is_comment"}
            for change in changes
        ],
    }


if __name__ == "__main__":
    sys.exit(main())
