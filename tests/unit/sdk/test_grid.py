"""A file in numbered parts: the same rows for the same number, however the file is read."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pyarrow as pa
import pytest

from tidemill.errors import InputError
from tidemill.input import grid
from tidemill.input.grid import PART_ROWS, file_identity, parts


def batches(rows: int, rng: random.Random) -> list[pa.RecordBatch]:
    """So many numbers, in batches of any size."""
    cuts = sorted({0, rows, *(rng.randrange(rows + 1) for _ in range(rng.randrange(8)))})
    return [pa.record_batch({"n": pa.array(range(first, last))}) for first, last in itertools.pairwise(cuts)]


def test_a_part_is_the_same_rows_however_they_come() -> None:
    seed = random.randrange(1 << 30)
    rng = random.Random(seed)
    for _ in range(60):
        rows = rng.choice([0, 1, PART_ROWS - 1, PART_ROWS, PART_ROWS + 1, rng.randrange(5 * PART_ROWS)])
        first = rng.randrange(-(-rows // PART_ROWS) + 2)
        found = [part["n"].to_pylist() for part in parts(batches(rows, rng), first, Path("f"))]
        starts = range(first * PART_ROWS, rows, PART_ROWS)
        assert found == [list(range(start, min(rows, start + PART_ROWS))) for start in starts], f"seed {seed}"


def test_a_part_that_fits_into_no_message_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid, "PART_BYTES_MAX", 1_000)
    with pytest.raises(InputError, match=r"f\.csv: 126 rows of it are 1,0\d\d bytes.*--again"):
        list(parts([pa.record_batch({"n": pa.array(range(126))})], 0, Path("f.csv")))


def test_an_identity_is_of_content_stream_and_mapping(tmp_path: Path) -> None:
    file, copy = tmp_path / "a.csv", tmp_path / "b.csv"
    file.write_text("n\n1\n")
    copy.write_text("n\n1\n")
    one = file_identity(file, "numbers", {"n": "n"}, None)
    assert file_identity(copy, "numbers", {"n": "n"}, None) == one
    others = {
        file_identity(file, "other", {"n": "n"}, None),
        file_identity(file, "numbers", {"n": "'n'"}, None),
        file_identity(file, "numbers", {"n": "n"}, "Europe/London"),
    }
    file.write_text("n\n2\n")
    others.add(file_identity(file, "numbers", {"n": "n"}, None))
    assert len(others - {one}) == 4
    with pytest.raises(InputError, match="cannot be read"):
        file_identity(tmp_path / "none", "numbers", {}, None)
