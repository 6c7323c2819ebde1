"""Trials of live models: `python -m ingest_service.live.trial`.

    --manifest FILE  the live manifest
    --proto DIR      the folder of the contracts
    --rows N         how many events of a stream are made up where none are given
    --seed S         of all that is random
    [MODEL …]        which models; all of the manifest where none is named

1 Says, as one JSON line, which streams the models read: `{"needs": {STREAM: {"arrow_schema": …, "required": […]}}}`,
the schema as base64 of an Arrow IPC schema message. 2 Reads one JSON line: `{"given": {STREAM: FILE}}`, Arrow IPC files
with events of some of them; at the end of input, and for all others, events are made up. 3 Says of each stream, as one
JSON line, where its events come from, and of each model what came of it. The exit status is 1 where anything differs.
`tidemill test` shows it to people.
"""

from __future__ import annotations

import argparse
import base64
import dataclasses
import json
import random
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from sqlglot import exp

from ingest_service.contracts import Contract, load_contracts
from ingest_service.errors import ConfigError, IngestError
from ingest_service.live.check import keep_stdout
from ingest_service.live.duck import open_duck
from ingest_service.live.manifest import LiveModel, read_manifest, relation_of
from ingest_service.live.trial.events import EventMaker, NoEvents, as_sample
from ingest_service.live.trial.hints import Hints, parsed
from ingest_service.live.trial.log import TrialLog
from ingest_service.live.trial.run import Outcome, Trial

Line = dict[str, Any]


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; gives the exit status."""
    parser = argparse.ArgumentParser(prog="trial", description="Run live models live and as batch, and compare.")
    parser.add_argument("--manifest", type=Path, required=True, help="the live manifest")
    parser.add_argument("--proto", type=Path, default=Path("proto"), help="folder of the contracts (default: proto)")
    parser.add_argument("--rows", type=int, default=5_000, help="events made up of a stream (default: 5,000)")
    parser.add_argument("--seed", type=int, default=1, help="of all that is random (default: 1)")
    parser.add_argument("models", nargs="*", metavar="MODEL", help="which models (default: all)")
    options = parser.parse_args(arguments)
    try:
        trials = Trials(options.manifest, options.proto, options.models, options.rows, options.seed)
        _say({"needs": trials.needs()})
        line = sys.stdin.readline()
        agree = True
        for said in trials.run(json.loads(line)["given"] if line.strip() else {}):
            _say(said)
            agree = agree and said.get("agrees", True)
    except IngestError as error:
        sys.stderr.write(f"tidemill: {error}\n")
        return 1
    return 0 if agree else 1


class Trials:
    """The models of one manifest, each to be run over events of its stream."""

    def __init__(self, manifest: Path, proto: Path, names: Sequence[str], rows: int, seed: int) -> None:
        """Raises ConfigError when there is no such manifest or model, or nothing in it."""
        if rows < 1:
            raise ConfigError(f"--rows: expected 1 or more, came {rows}")
        self._known = read_manifest(manifest)
        by_name = {model.name: model for model in self._known}
        unknown = [name for name in names if name not in by_name]
        if unknown or not by_name:
            listed = ", ".join(by_name) or "none"
            raise ConfigError(f"there is no live model {(unknown or ['at all'])[0]}; the live models are: {listed}")
        self._models = [by_name[name] for name in dict.fromkeys(names)] if names else self._known
        loaded = load_contracts(proto)
        self._contracts = loaded.contracts
        self._problems = [problem.text for problem in loaded.problems]
        self._rows = rows
        self._seed = seed

    def needs(self) -> dict[str, Line]:
        """What events of the models' streams look like, for whoever has some."""
        return {
            stream: {
                "arrow_schema": base64.b64encode(self._contracts[stream].schema.serialize().to_pybytes()).decode(),
                "required": [column.name for column in self._contracts[stream].columns if not column.nullable],
            }
            for stream in self._streams()
        }

    def run(self, given: Mapping[str, str]) -> Iterable[Line]:
        """A line for each stream, and one for each model."""
        logs: dict[str, TrialLog] = {}
        empty: dict[str, str] = {}
        for stream in self._streams():
            contract = self._contracts[stream]
            try:
                sample, said = self._sample(contract, given.get(stream))
            except NoEvents as error:
                sample, said = contract.schema.empty_table(), {"problem": str(error)}
            if not sample.num_rows:
                empty[stream] = str(said.get("problem", f"no event of the stream {stream} keeps its contract"))
            logs[stream] = TrialLog(contract.log_spec(), sample)
            yield {"stream": stream, "rows": sample.num_rows, "seed": self._seed, **said}
        duck = open_duck()
        for model in self._models:
            yield self._as_line(self._outcome(model, logs, empty, duck))

    def _outcome(self, model: LiveModel, logs: Mapping[str, TrialLog], empty: Mapping[str, str], duck: Any) -> Outcome:
        stream = self._stream_of(model)
        if stream is not None and stream in empty:
            return Outcome(model.name, model.path, stream, problem=empty[stream])
        # Its own course, whichever other models are run beside it.
        rng = random.Random(f"{self._seed} {model.name}")  # noqa: S311 - to be repeated, not to be secret
        with tempfile.TemporaryDirectory(prefix="tidemill-trial-") as folder:
            outcome = Trial(model, logs, duck, rng).run(Path(folder))
        if outcome.problem and self._problems:
            return dataclasses.replace(outcome, problem="\n".join([outcome.problem, *self._problems]))
        return outcome

    def _sample(self, contract: Contract, file: str | None) -> tuple[pa.Table, Line]:
        if file is not None:
            with pa.OSFile(file) as source, pa.ipc.open_file(source) as reader:
                batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
            kept, refused = as_sample(contract, batches)
            return kept, {"made_up": False, "refused": refused}
        hints = Hints.of(model for model in self._known if self._stream_of(model) == contract.stream)
        rng = random.Random(f"{self._seed} {contract.stream}")  # noqa: S311 - to be repeated, not to be secret
        return EventMaker(contract, hints, rng).table(self._rows), {"made_up": True, "refused": 0}

    def _streams(self) -> list[str]:
        """The streams that the models read, as far as they have a contract."""
        return sorted({stream for model in self._models if (stream := self._stream_of(model)) is not None})

    def _stream_of(self, model: LiveModel) -> str | None:
        """The first of the streams with a contract that a model's SQL names; which it may read, its plan says."""
        tables = [table for tree in parsed(model.sql) for table in tree.find_all(exp.Table)]
        named = (model.streams.get(relation_of(table)) for table in tables)
        return next((stream for stream in named if stream in self._contracts), None)

    def _as_line(self, outcome: Outcome) -> Line:
        line = dataclasses.asdict(outcome)
        found = line.pop("found")
        differences = [{"at": each["at"], **each["difference"]} for each in found]
        return {**line, "agrees": outcome.agrees, "seed": self._seed, "differences": differences}


def _say(line: Line) -> None:
    sys.stdout.write(json.dumps(line, ensure_ascii=False) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    keep_stdout()
    sys.exit(main())
