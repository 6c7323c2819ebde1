{{ config(
    materialized='incremental',
    incremental_strategy='microbatch',
    tags=['live'],
    event_time='window_start',
    batch_size=var('batch_size'),
    begin=begin_date(),
) }}
-- Whoever tries out a stolen card pays many small amounts in a short time.
with payments as (
    select
        invoiced_at,
        customer_id,
        quantity * unit_price as amount
    from {{ source('events', 'order_lines') }}
    where quantity > 0 and unit_price > 0 and customer_id is not null
)

select
    time_bucket(interval '5 minutes', invoiced_at) as window_start,
    customer_id,
    count(*) as payments,
    sum(amount) as paid,
    count(*) filter (where amount < 1) as small_payments,
    coalesce(sum(amount) filter (where amount < 1), 0) as small_paid,
    max(amount) as largest_payment,
    count(*) filter (where amount < 1) >= 20 as is_burst
from payments
group by all
