"""What a benchmark gives, and how it is shown and kept."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Result:
    """One measured figure. peer: what it is compared with in the same run, ratio: value divided by the peer's."""

    name: str
    value: float
    unit: str
    peer: str | None = None
    ratio: float | None = None


def table(results: list[Result]) -> str:
    """The results as text, a line each."""
    lines = [f"{'name':<18} {'value':>14} {'unit':<22} {'ratio':>7}  peer"]
    for result in results:
        value = f"{result.value:,.0f}" if result.value >= 1000 else f"{result.value:,.2f}"
        ratio = f"{result.ratio:.2f}" if result.ratio is not None else ""
        lines.append(f"{result.name:<18} {value:>14} {result.unit:<22} {ratio:>7}  {result.peer or ''}".rstrip())
    return "\n".join(lines)


def write(results: list[Result], path: Path) -> None:
    """Keep the results as JSON; those of other names that the file has already stay."""
    kept: dict[str, object] = {}
    if path.is_file():
        kept = {each["name"]: each for each in json.loads(path.read_text())}
    kept |= {result.name: asdict(result) for result in results}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(list(kept.values()), indent=1) + "\n")


def percentile(values: list[float], share: float) -> float:
    """The value below which `share` (0 to 1) of the values lie, by the nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
