"""What requests to a web server have to be, beyond what their contract says."""

from quality.suite import (
    STOP,
    WARN,
    SourceSuite,
    by_date,
    holds,
    late_share,
    no_future_events,
    quarantined_share,
    row_count,
    usual_rows,
)

suite = SourceSuite(
    "web_requests",
    no_future_events(STOP),
    row_count(WARN, at_least=1),
    usual_rows(WARN, within=0.75),
    quarantined_share(WARN, at_most=0.01),
    late_share(WARN, at_most=0.05),
    by_date(
        WARN,
        "avg((status >= 500)::int)",
        at_most=0.01,
        says="at most 1 % of a date's requests end in a server's error",
        name="server_errors",
    ),
    holds(WARN, "status < 500", says="the server answered"),
    holds(WARN, "starts_with(url, '/')", says="url is a path"),
    key=("_offset", "event_id"),
)
