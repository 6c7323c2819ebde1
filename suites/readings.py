"""What a machine's readings have to be, beyond what their contract says."""

from quality.suite import STOP, WARN, SourceSuite, holds, late_share, no_future_events, quarantined_share, row_count

suite = SourceSuite(
    "readings",
    no_future_events(STOP),
    row_count(WARN, at_least=1),
    quarantined_share(WARN, at_most=0.01),
    late_share(WARN, at_most=0.05),
    holds(
        WARN,
        "unit <> 'percent' or value between 0 and 100",
        says="a percentage is between 0 and 100",
        columns=["unit", "value"],
    ),
    holds(WARN, "metric <> 'used_percent' or unit = 'percent'", says="a metric has its unit"),
    key=("_offset", "event_id"),
)
