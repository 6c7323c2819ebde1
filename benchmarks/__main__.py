"""`python -m benchmarks [--only NAME]`: run the benchmarks, print a table, write build/bench.json."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from benchmarks import clients, day, ingest, live, live_growth, live_replay, live_visible, peers
from benchmarks.result import Result, table, write
from benchmarks.service import PROJECT

_APPEND = tuple(f"append_{name}{unit}" for name in ("typed", "prepared", "arrow") for unit in ("", "_bytes"))
_NO_DEDUP = tuple(f"append_{name}_no_dedup{unit}" for name in ("typed", "prepared", "arrow") for unit in ("", "_bytes"))
_REPLAY = ("replay", "replay_in_process", *(f"replay_versus_{peer}" for peer in ("spark", "bytewax", "duckdb")))
_VISIBLE = tuple(
    f"visible_{rate}_{figure}" for rate in live_visible.RATES for figure in ("ms_p50", "ms_p99", "acked_ms_p99")
)
_GROWTH = tuple(
    f"growth_{size // 1_000_000}m_{figure}"
    for size in live_growth.SIZES
    for figure in ("replay_s", "peak_mib", "restart_s")
)
_MILLION = ("day_million_published_s", "day_million_versus_cosmos")

BENCHMARKS: dict[tuple[str, ...], Callable[[], list[Result]]] = {
    _APPEND: ingest.append,
    _NO_DEDUP: ingest.append_no_dedup,
    ("append_prepared_live",): ingest.append_live,
    ("ack_ms_p50", "ack_ms_p99"): ingest.ack,
    ("ack_live_ms_p50", "ack_live_ms_p99"): ingest.ack_live,
    ("clients_200_ms_p50", "clients_200_ms_p99"): clients.clients,
    ("versus_postgres", "versus_postgres_no_dedup"): peers.postgres,
    ("versus_redis",): peers.redis,
    ("versus_kafka", "versus_kafka_fsync"): peers.kafka,
    _REPLAY: live_replay.replay,
    ("replay_views_2", "replay_views_4", "replay_views_8", "further_view"): live_replay.further_views,
    ("replay_million", "replay_million_versus_spark"): live_replay.million_groups,
    ("visible_ms_p50", "visible_ms_p99"): live.visible,
    _VISIBLE: live_visible.visible,
    _GROWTH: live_growth.growth,
    ("daily_dag_s",): day.daily,
    _MILLION: day.million,
}


def main() -> int:
    """Run what was asked for; 2 for a name that is none."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    names = [name for group in BENCHMARKS for name in group]
    parser.add_argument("--only", metavar="NAME", help=f"one of: {', '.join(names)}")
    only = parser.parse_args().only
    if only is not None and only not in names:
        print(f"there is no benchmark {only!r}; expected one of: {', '.join(names)}", file=sys.stderr)
        return 2
    results: list[Result] = []
    for group, run in BENCHMARKS.items():
        if only is None or only in group:
            print(f"measuring {', '.join(group)} …", file=sys.stderr, flush=True)
            results += [result for result in run() if only in (None, result.name)]
    print(table(results))
    path = PROJECT / "build" / "bench.json"
    write(results, path)
    print(f"written to {path.relative_to(PROJECT)}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
