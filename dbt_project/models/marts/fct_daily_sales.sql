select
    event_date as sales_date,
    country,
    count(distinct invoice_no) filter (where not is_cancellation) as orders,
    count(distinct invoice_no) filter (where is_cancellation) as cancellations,
    count(distinct customer_id) as customers,
    count(*) as lines,
    sum(quantity)::bigint as units,
    coalesce(sum(line_amount) filter (where line_amount > 0), 0) as gross_revenue,
    coalesce(sum(line_amount) filter (where line_amount < 0), 0) as returned_revenue,
    sum(line_amount) as revenue
from {{ ref('stg_order_lines') }}
group by event_date, country
