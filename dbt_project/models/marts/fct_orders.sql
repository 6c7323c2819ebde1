select
    invoice_no,
    -- An invoice has one customer and one country; should lines disagree, the first line that has one decides.
    arg_min(customer_id, _offset) as customer_id,
    arg_min(country, _offset) as country,
    min(invoiced_at) as ordered_at,
    max(invoiced_at) as last_line_at,
    min(event_date) as order_date,
    any_value(is_cancellation) as is_cancellation,
    any_value(is_adjustment) as is_adjustment,
    count(*) as lines,
    count(distinct stock_code) as articles,
    sum(quantity)::bigint as units,
    sum(line_amount) as revenue
from {{ ref('stg_order_lines') }}
group by invoice_no
