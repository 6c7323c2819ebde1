"""bytewax, a dataflow library for Python on Rust, as a job of `environment`; runs in the peers' venv.

A row as a Python object is the library's own unit, and costs microseconds. Here it gets the form that suits it best:
an item is an Arrow table of a micro-batch, pyarrow aggregates it, and bytewax keeps and merges the groups' states, with
its recovery store on disk.

Request: {"do": "replay", "parquet", "view": "minute", "files"}: a folder, so many files an item -> seconds, groups
"""

import datetime as dt
import json
import shutil
import sys
import time
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path

import bytewax.operators as op
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from bytewax.dataflow import Dataflow
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import run_main

_COLUMNS = ["invoiced_at", "country", "quantity", "unit_price"]
State = tuple[int, int, Decimal]


class Files(FixedPartitionedSource):
    """The files of a folder, so many a table."""

    def __init__(self, parquet: str, files: int) -> None:
        self._parquet = parquet
        self._files = files

    def list_parts(self) -> list[str]:
        """One part: the files in their order."""
        return ["all"]

    def build_part(self, _step: str, _part: str, resume_state: int | None) -> "FilesPart":
        """The part, from where it was."""
        return FilesPart(sorted(Path(self._parquet).iterdir()), self._files, resume_state or 0)


class FilesPart(StatefulSourcePartition):
    """Its state is how many files were read."""

    def __init__(self, paths: list[Path], files: int, at: int) -> None:
        self._paths, self._files, self._at = paths, files, at

    def next_batch(self) -> list[pa.Table]:
        """The next files as one table."""
        paths = self._paths[self._at : self._at + self._files]
        if not paths:
            raise StopIteration
        self._at += len(paths)
        return [pa.concat_tables([pq.read_table(path, columns=_COLUMNS) for path in paths])]

    def snapshot(self) -> int:
        """How many files were read."""
        return self._at


class Latest(DynamicSink, StatelessSinkPartition):
    """Keeps each group's last state, as a table would."""

    def __init__(self) -> None:
        self.groups: dict[str, State] = {}

    def build(self, *_: object) -> "Latest":
        """One worker, one sink."""
        return self

    def write_batch(self, items: list[tuple[str, State]]) -> None:
        """Keeps what came last."""
        self.groups.update(items)


def aggregate(rows: pa.Table) -> Iterable[tuple[str, State]]:
    """A micro-batch's states by minute and country."""
    rows = rows.filter(pc.greater(rows["quantity"], 0))
    table = pa.table(
        {
            "minute": pc.floor_temporal(rows["invoiced_at"], unit="minute").cast(pa.int64()),
            "country": rows["country"],
            "quantity": rows["quantity"],
            "revenue": pc.multiply(pc.cast(rows["quantity"], pa.decimal128(19, 0)), rows["unit_price"]),
        }
    )
    groups = table.group_by(["minute", "country"]).aggregate(
        [([], "count_all"), ("quantity", "sum"), ("revenue", "sum")]
    )
    columns = [column.to_pylist() for column in groups.itercolumns()]
    return [(f"{minute} {country}", tuple(state)) for minute, country, *state in zip(*columns, strict=True)]


def merge(so_far: State | None, state: State) -> tuple[State, State]:
    """A group's states added up: what is kept, and what is shown."""
    if so_far is not None:
        state = (so_far[0] + state[0], so_far[1] + state[1], so_far[2] + state[2])
    return state, state


def replay(folder: Path, parquet: str, files: int) -> dict[str, float]:
    """All of a folder into the view, and how long it took."""
    shutil.rmtree(folder / "recovery", ignore_errors=True)
    (folder / "recovery").mkdir()
    init_db_dir(folder / "recovery", 1)
    latest = Latest()
    flow = Dataflow("replay")
    partial = op.flat_map("aggregate", op.input("files", flow, Files(parquet, files)), aggregate)
    op.output("latest", op.stateful_map("merge", partial, merge), latest)
    start = time.perf_counter()
    # As often as Tidemill commits while it catches up.
    run_main(
        flow,
        epoch_interval=dt.timedelta(seconds=1),
        recovery_config=RecoveryConfig(str(folder / "recovery")),
    )
    seconds = time.perf_counter() - start
    return {
        "seconds": seconds,
        "groups": len(latest.groups),
        "rows": sum(state[0] for state in latest.groups.values()),
    }


def main() -> None:
    """Answers requests until standard input ends."""
    answers = sys.stdout
    sys.stdout = sys.stderr
    print("{}", file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        assert (request.pop("do"), request.pop("view")) == ("replay", "minute")
        print(json.dumps(replay(Path(sys.argv[1]), **request)), file=answers, flush=True)


main()
