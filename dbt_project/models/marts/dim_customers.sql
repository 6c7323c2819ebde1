select
    customer_id,
    arg_max(country, (ordered_at, invoice_no)) as country,
    count(distinct country) as countries,
    min(ordered_at) filter (where not is_cancellation) as first_order_at,
    arg_min(invoice_no, (ordered_at, invoice_no)) filter (where not is_cancellation) as first_invoice_no,
    max(ordered_at) filter (where not is_cancellation) as last_order_at,
    arg_max(invoice_no, (ordered_at, invoice_no)) filter (where not is_cancellation) as last_invoice_no,
    count(*) filter (where not is_cancellation) as orders,
    count(*) filter (where is_cancellation) as cancellations,
    sum(units)::bigint as units,
    sum(revenue) as revenue
from {{ ref('fct_orders') }}
where customer_id is not null
group by customer_id
