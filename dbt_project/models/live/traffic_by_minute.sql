{{ config(
    materialized='incremental',
    incremental_strategy='microbatch',
    tags=['live'],
    event_time='window_start',
    batch_size=var('batch_size'),
    begin=begin_date(),
) }}
select
    time_bucket(interval '1 minute', requested_at) as window_start,
    count(*) as requests,
    sum(bytes) as bytes,
    approx_count_distinct(host) as hosts,
    approx_quantile(bytes, 0.95) as bytes_p95,
    count(*) filter (where status >= 400) as errors,
    count(*) filter (where status >= 400) / count(*) as error_rate
from {{ source('events', 'web_requests') }}
group by all
