"""For how long the upkeep keeps what: defaults with which a disk does not fill."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from quality.errors import ConfigWrong


@dataclass(frozen=True)
class UpkeepSettings:
    """For how long what is kept, in days; each at least 1, or ConfigWrong: a run may need what it wrote yesterday.

    keep_days: lake versions that runs are pinned to, and the runs' failed rows. Default 30: for so long a
        run can be built again from the very same data (`--as-of`).
    lake_days: every lake version that was the present one. Default 7.
    large_days: dbt's target and logs, and copies of the warehouse, in the runs' folders. Default 7.
    record_days: the runs' records. Default 400.
    docs_days: results of checks and their pages. Default 90. alerts_days: alerts. Default 90.
    leftover_days: what dead runs and imports left. Default 2.
    backup: folder of the backups; None: none are made. backups: how many are kept, the newest. Default 7.
    """

    keep_days: float = 30
    lake_days: float = 7
    large_days: float = 7
    record_days: float = 400
    docs_days: float = 90
    alerts_days: float = 90
    leftover_days: float = 2
    backup: Path | None = None
    backups: int = 7

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name != "backup" and not value >= 1:
                raise ConfigWrong(f"{field.name}: expected 1 at the least, came {value}")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> UpkeepSettings:
        """Read TIDEMILL_KEEP_DAYS, TIDEMILL_BACKUP and TIDEMILL_BACKUPS; raises ConfigWrong."""
        given = os.environ if environment is None else environment
        backup = given.get("TIDEMILL_BACKUP", "")
        return cls(
            keep_days=_number(given, "TIDEMILL_KEEP_DAYS", 30),
            backup=Path(backup).expanduser().absolute() if backup else None,
            backups=int(_number(given, "TIDEMILL_BACKUPS", 7)),
        )


def _number(given: Mapping[str, str], name: str, default: float) -> float:
    text = given.get(name, "").strip()
    try:
        number = float(text) if text else default
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ConfigWrong(f"{name}: expected a number, came {text!r}")
    return number
