with lines as (
    select
        *,
        invoiced_at - lag(invoiced_at) over (partition by customer_id order by invoiced_at, _offset) as since_last_line
    from {{ ref('stg_order_lines') }}
    where customer_id is not null
),

numbered as (
    select
        *,
        -- The first line has none before it.
        sum(case when since_last_line < interval '1 hour' then 0 else 1 end) over (
            partition by customer_id order by invoiced_at, _offset rows unbounded preceding
        )::bigint as session_no
    from lines
)

select
    customer_id || '-' || session_no as session_id,
    customer_id,
    session_no,
    min(invoiced_at) as started_at,
    max(invoiced_at) as ended_at,
    date_diff('second', min(invoiced_at), max(invoiced_at)) as seconds,
    min(event_date) as session_date,
    count(distinct invoice_no) as invoices,
    count(distinct stock_code) as articles,
    count(*) as lines,
    sum(quantity)::bigint as units,
    sum(line_amount) as revenue,
    bool_or(is_cancellation) as has_cancellation
from numbered
group by customer_id, session_no
