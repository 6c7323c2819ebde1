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
    status,
    count(*) as requests,
    sum(bytes) as bytes,
    max(bytes) as bytes_max,
    -- Of their hashes, because the distinct values are kept beside the view.
    count(distinct {{ hashed('host') }}) as hosts,
    count(distinct url) as urls
from {{ source('events', 'web_requests') }}
group by all
