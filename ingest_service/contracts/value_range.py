"""The values that the rules gt, gte, lt and lte allow together, as intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

RANGE_RULES = frozenset({"gt", "gte", "lt", "lte"})


class Interval(NamedTuple):
    """Values from `low` to `high`, either of them included or not; None: without that bound."""

    low: Any
    low_in: bool
    high: Any
    high_in: bool


def ranges_of(rules: Mapping[str, Any]) -> list[Interval]:
    """What the bounds allow. As in protovalidate, an upper bound below the lower one asks for values outside both."""
    low, low_in = (rules["gt"], False) if "gt" in rules else (rules.get("gte"), True)
    high, high_in = (rules["lt"], False) if "lt" in rules else (rules.get("lte"), True)
    if low is not None and high is not None and high < low:
        return [Interval(None, True, high, high_in), Interval(low, low_in, None, True)]
    return [Interval(low, low_in, high, high_in)]


def covers(wider: Sequence[Interval], narrower: Sequence[Interval]) -> bool:
    """Whether every value that `narrower` allows is allowed by `wider` too."""
    return all(any(_covers(outer, inner) for outer in wider) for inner in narrower)


def _covers(outer: Interval, inner: Interval) -> bool:
    above = outer.low is None or (
        inner.low is not None
        and (inner.low > outer.low or (inner.low == outer.low and (outer.low_in or not inner.low_in)))
    )
    below = outer.high is None or (
        inner.high is not None
        and (inner.high < outer.high or (inner.high == outer.high and (outer.high_in or not inner.high_in)))
    )
    return above and below
