{{ config(
    materialized='incremental',
    incremental_strategy='microbatch',
    tags=['live'],
    event_time='requested_at',
    batch_size=var('batch_size'),
    begin=begin_date(),
    meta={'live': {'retain': '30 days'}},
) }}
select
    _offset,
    requested_at,
    {{ hashed('host') }} as host_hash,
    method,
    url,
    status
from {{ source('events', 'web_requests') }}
where status >= 400
