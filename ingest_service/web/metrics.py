"""The metrics for Prometheus, made of the parts' own counts when they are asked for."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from ingest_service.log.load import Load
from ingest_service.log.timings import BUCKETS_S, Distribution
from ingest_service.web.observed import Observed, ObservedStream

_STREAM = ["stream"]
_VIEW = ["view", "stream"]
_Gauges = tuple[tuple[str, str], ...]

STREAM_GAUGES: _Gauges = (
    ("tidemill_durable_offset", "Everything strictly below this offset is on disk"),
    ("tidemill_log_start_offset", "First offset that the log keeps"),
    ("tidemill_watermark_seconds", "Event time below which the stream is believed complete, seconds since 1970 UTC"),
    ("tidemill_queue_appends", "Appends that wait to be committed"),
    ("tidemill_queue_bytes", "Bytes of rows that wait to be committed"),
    ("tidemill_producers", "Producers remembered"),
    ("tidemill_dedup_ids", "Event ids in memory"),
    ("tidemill_dedup_bytes", "Memory that they take"),
    ("tidemill_segments", "Segments of the log"),
    ("tidemill_segment_bytes", "Size of the log on disk"),
    ("tidemill_write_failed", "1: the last frame could not be written"),
    ("tidemill_stream_stopped", "1: the stream takes no events"),
    ("tidemill_lake_offset", "Everything strictly below this offset is in the lake"),
    ("tidemill_lake_lag_rows", "Durable rows that are not in the lake yet"),
    ("tidemill_lake_failed", "1: the last export failed; the next one tries again"),
)
VIEW_GAUGES: _Gauges = (
    ("tidemill_view_offset", "The live view covers everything strictly below this offset"),
    ("tidemill_view_lag_rows", "Durable rows that it does not cover yet"),
    ("tidemill_view_stopped", "1: it stands still"),
)


def registry_of(observed: Observed) -> CollectorRegistry:
    """A registry with the service's metrics and those of its process."""
    registry = CollectorRegistry()
    registry.register(_Service(observed))
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


class _Service(Collector):
    """Asks the parts when it is asked."""

    def __init__(self, observed: Observed) -> None:
        self._observed = observed

    def collect(self) -> Iterator[Metric]:
        """Every metric, as it is now."""
        observed = self._observed
        yield InfoMetricFamily("tidemill_build", "The service", {"version": importlib.metadata.version("tidemill")})
        yield from _rows(observed.streams.items())
        loads = {name: stream.log.load() for name, stream in observed.streams.items()}
        streams = [((name,), _of_stream(stream, loads[name])) for name, stream in observed.streams.items()]
        yield from _gauges(STREAM_GAUGES, _STREAM, streams)
        commits = {name: load.commit_times for name, load in loads.items()}
        yield _histogram("tidemill_commit_seconds", "How long a frame took to be made, written and synced", commits)
        syncs = {name: load.sync_times for name, load in loads.items()}
        yield _histogram("tidemill_sync_seconds", "How long its fdatasync took", syncs)
        yield from _gauges(VIEW_GAUGES, _VIEW, list(_of_views(observed)))
        refusals = CounterMetricFamily("tidemill_refusals", "Calls that were refused", labels=["reason"])
        for reason, count in sorted(observed.refusals.items()):
            refusals.add_metric([reason], count)
        yield refusals
        keys = 0 if observed.keys is None else observed.keys()
        yield GaugeMetricFamily("tidemill_api_keys", "Valid API keys; 0 also where none are asked for", keys)


def _rows(streams: Iterable[tuple[str, ObservedStream]]) -> Iterator[Metric]:
    rows = CounterMetricFamily("tidemill_rows", "Rows received, by what became of them", labels=["stream", "result"])
    late = CounterMetricFamily("tidemill_late_rows", "Appended rows of dates sealed before", labels=_STREAM)
    for name, stream in streams:
        counts = stream.log.counts()
        for result in ("appended", "duplicate", "quarantined"):
            rows.add_metric([name, result], getattr(counts, result))
        late.add_metric([name], counts.late)
    yield rows
    yield late


def _of_stream(stream: ObservedStream, load: Load) -> dict[str, float | None]:
    log, lake = stream.log, stream.lake.state()
    watermark_us, durable = log.watermark_us, log.durable_offset
    return {
        "tidemill_durable_offset": durable,
        "tidemill_log_start_offset": log.start_offset,
        "tidemill_watermark_seconds": None if watermark_us is None else watermark_us / 1e6,
        "tidemill_queue_appends": load.queue_appends,
        "tidemill_queue_bytes": load.queue_bytes,
        "tidemill_producers": load.producers,
        "tidemill_dedup_ids": load.dedup_ids,
        "tidemill_dedup_bytes": load.dedup_bytes,
        "tidemill_segments": load.segments,
        "tidemill_segment_bytes": load.segment_bytes,
        "tidemill_write_failed": bool(load.write_error),
        "tidemill_stream_stopped": bool(stream.error),
        "tidemill_lake_offset": lake.offset,
        "tidemill_lake_lag_rows": max(0, durable - lake.offset),
        "tidemill_lake_failed": stream.lake.last_error is not None,
    }


def _of_views(observed: Observed) -> Iterator[tuple[tuple[str, ...], dict[str, float | None]]]:
    for name, view in observed.views().items():
        stream = observed.streams.get(view.stream)
        lag = max(0, stream.log.durable_offset - view.offset) if stream is not None else None
        values = (view.offset, lag, bool(view.error))
        yield (name, view.stream), dict(zip((gauge for gauge, _ in VIEW_GAUGES), values, strict=True))


def _gauges(
    gauges: _Gauges, labels: list[str], found: Sequence[tuple[tuple[str, ...], dict[str, float | None]]]
) -> Iterator[Metric]:
    """A family for each gauge; a value that is not known yet is left out."""
    for name, text in gauges:
        family = GaugeMetricFamily(name, text, labels=labels)
        for of, values in found:
            value = values[name]
            if value is not None:
                family.add_metric(of, float(value))
        yield family


def _histogram(name: str, text: str, found: dict[str, Distribution]) -> Metric:
    family = HistogramMetricFamily(name, text, labels=_STREAM)
    bounds = [*(f"{bound:g}" for bound in BUCKETS_S), "+Inf"]
    for stream, distribution in found.items():
        total, buckets = 0, []
        for bound, count in zip(bounds, distribution.counts, strict=True):
            total += count
            buckets.append((bound, float(total)))
        family.add_metric([stream], buckets, distribution.sum_s)
    return family
