"""Rows between decoding and verdict, from protobuf or Arrow alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from ingest_service.contracts.judge import Broken


@dataclass(frozen=True, slots=True)
class WireRows:
    """Rows as protobuf types them, by column: decimals as text, unsigned integers unsigned.

    finished: columns that came as the contract's own type (decimals from Arrow); the rules about text don't apply.
    misfits: by row, the values that their column cannot hold; the value itself is null (or zero) in `columns`.
    """

    columns: Mapping[str, pa.Array]
    row_count: int
    finished: Mapping[str, pa.Array] = field(default_factory=dict)
    misfits: Mapping[int, list[Broken]] = field(default_factory=dict)
