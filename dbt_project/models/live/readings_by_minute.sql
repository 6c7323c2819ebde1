{{ config(
    materialized='incremental',
    incremental_strategy='microbatch',
    tags=['live'],
    event_time='window_start',
    batch_size=var('batch_size'),
    begin=begin_date(),
    meta={'live': {'retain': '30 days'}},
) }}
select
    time_bucket(interval '1 minute', measured_at) as window_start,
    host,
    sensor,
    metric,
    unit,
    count(*) as readings,
    avg(value) as value_avg,
    min(value) as value_min,
    max(value) as value_max,
    last(value order by measured_at, _offset) as value_last,
    max(measured_at) as last_measured_at
from {{ source('events', 'readings') }}
group by all
