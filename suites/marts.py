"""What the shop's marts have to be, each for itself and beside each other."""

from quality.suite import STOP, WARN, MartSuite, by_date, holds, no_nulls, one_of, refers_to, row_count, unique, usual

orders = MartSuite(
    "fct_orders",
    unique(STOP, "invoice_no"),
    holds(STOP, "last_line_at >= ordered_at"),
    holds(STOP, "lines >= 1"),
    refers_to(STOP, "customer_id", "dim_customers", "customer_id"),
    row_count(WARN, at_least=1),
    no_nulls(WARN, "customer_id"),
    holds(WARN, "revenue between -10000 and 50000", says="an order is between -10,000 and 50,000 pounds"),
    holds(WARN, "ordered_at = last_line_at", says="all lines of an order are of one minute"),
    date="order_date",
    key=("invoice_no",),
)

daily_sales = MartSuite(
    "fct_daily_sales",
    unique(STOP, "sales_date", "country"),
    holds(STOP, "gross_revenue >= 0"),
    holds(STOP, "returned_revenue <= 0"),
    holds(STOP, "revenue = gross_revenue + returned_revenue"),
    holds(WARN, "revenue >= 0"),
    by_date(WARN, "sum(revenue)", at_least=0, at_most=250_000, says="a day's revenue is from 0 to 250,000 pounds"),
    usual(WARN, "sum(revenue)", within=0.9, says="a day's revenue"),
    date="sales_date",
    key=("sales_date", "country"),
)

customers = MartSuite(
    "dim_customers",
    unique(STOP, "customer_id"),
    holds(STOP, "last_order_at >= first_order_at"),
    one_of(WARN, "countries", 1),
    holds(WARN, "orders >= 1"),
    key=("customer_id",),
)

# What must hold across marts: every mart counts the same lines and the same money.
totals = MartSuite(
    "totals",
    holds(STOP, "lines = order_lines", says="fct_orders has all lines"),
    holds(STOP, "lines = daily_lines", says="fct_daily_sales has all lines"),
    holds(STOP, "revenue = order_revenue", says="fct_orders has all revenue"),
    holds(STOP, "revenue = daily_revenue", says="fct_daily_sales has all revenue"),
    query="""
        select s.lines, s.revenue, o.lines as order_lines, o.revenue as order_revenue,
            d.lines as daily_lines, d.revenue as daily_revenue
        from (select count(*) as lines, coalesce(sum(line_amount), 0) as revenue from stg_order_lines) s,
            (select coalesce(sum(lines), 0)::bigint as lines, coalesce(sum(revenue), 0) as revenue from fct_orders) o,
            (select coalesce(sum(lines), 0)::bigint as lines, coalesce(sum(revenue), 0) as revenue
             from fct_daily_sales) d
    """,
)
