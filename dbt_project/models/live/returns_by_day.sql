{{ config(
    materialized='incremental',
    incremental_strategy='microbatch',
    tags=['live'],
    event_time='window_start',
    batch_size=var('batch_size'),
    begin=begin_date(),
) }}
select
    date_trunc('day', invoiced_at) as window_start,
    country,
    count(*) as lines,
    count(distinct invoice_no) as invoices,
    -sum(quantity) as units,
    -sum(quantity * unit_price) as refunded,
    count_if(unit_price = 0) as lines_without_price,
    bool_and(starts_with(invoice_no, 'C')) as all_on_cancellations,
    bool_or(quantity <= -100) as has_bulk
from {{ source('events', 'order_lines') }}
where quantity < 0
group by date_trunc('day', invoiced_at), country
