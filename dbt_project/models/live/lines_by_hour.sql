{{ config(
    materialized='incremental',
    incremental_strategy='microbatch',
    tags=['live'],
    event_time='window_start',
    batch_size=var('batch_size'),
    begin=begin_date(),
) }}
select
    time_bucket(interval '1 hour', invoiced_at) as window_start,
    count(*) as lines,
    approx_count_distinct(customer_id) as customers,
    approx_count_distinct(stock_code) as articles,
    approx_quantile(quantity, 0.5) filter (where quantity > 0) as quantity_median,
    approx_quantile(unit_price, 0.95) as unit_price_p95,
    var_pop(quantity) as quantity_variance
from {{ source('events', 'order_lines') }}
group by all
