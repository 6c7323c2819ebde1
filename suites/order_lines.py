"""What a shop's lines have to be, beyond what their contract says.

What the README of the retail set lists as dirty warns: those rows are real, and the contract lets them in.
"""

from quality.suite import (
    STOP,
    WARN,
    SourceSuite,
    holds,
    late_share,
    no_future_events,
    no_nulls,
    quarantined_share,
    row_count,
    unique,
    usual_rows,
)

suite = SourceSuite(
    "order_lines",
    no_future_events(STOP),
    row_count(WARN, at_least=1),
    usual_rows(WARN, within=0.75),
    quarantined_share(WARN, at_most=0.01),
    late_share(WARN, at_most=0.05),
    no_nulls(WARN, "customer_id"),
    no_nulls(WARN, "description"),
    holds(WARN, "description = trim(description)", says="no blanks around the description"),
    holds(WARN, "country <> 'Unspecified'", says="the country is known"),
    holds(WARN, "unit_price > 0"),
    holds(WARN, "quantity > 0", says="no line takes articles back"),
    holds(WARN, "regexp_full_match(stock_code, '[0-9]{5}[A-Za-z]*')", says="stock_code is a product's"),
    unique(WARN, "invoice_no", "stock_code"),
    key=("_offset", "event_id"),
)
