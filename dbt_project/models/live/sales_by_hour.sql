{{ config(
    materialized='incremental',
    incremental_strategy='microbatch',
    tags=['live'],
    event_time='window_start',
    batch_size=var('batch_size'),
    begin=begin_date(),
) }}
select
    time_bucket(interval '1 hour', order_lines.invoiced_at) as window_start,
    coalesce(regions.region, 'Unknown') as region,
    count(*) as lines,
    sum(order_lines.quantity) as units,
    sum(order_lines.quantity * order_lines.unit_price) as revenue,
    count(distinct order_lines.country) as countries
from {{ source('events', 'order_lines') }} as order_lines
left join {{ ref('regions') }} as regions on order_lines.country = regions.country
where order_lines.quantity > 0
group by all
