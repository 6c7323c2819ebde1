{{ config(
    materialized='incremental',
    incremental_strategy='microbatch',
    tags=['live'],
    event_time='window_start',
    batch_size=var('batch_size'),
    begin=begin_date(),
) }}
select
    time_bucket(interval '1 minute', invoiced_at) as window_start,
    country,
    count(*) as lines,
    sum(quantity) as units,
    sum(quantity * unit_price) as revenue,
    count(distinct customer_id) as customers
from {{ source('events', 'order_lines') }}
where quantity > 0
group by all
