with first_seals as (
    select
        stream,
        event_date,
        min(seal_offset) as seal_offset,
        arg_min(sealed_at, seal_offset) as sealed_at
    from {{ source('operations', 'seals') }}
    group by stream, event_date
),

events as (
    select
        'order_lines' as stream,
        _offset,
        event_id,
        invoiced_at as event_time,
        event_date,
        _append_time as append_time
    from {{ ref('stg_order_lines') }}
    union all
    select
        'web_requests' as stream,
        _offset,
        event_id,
        requested_at as event_time,
        event_date,
        _append_time as append_time
    from {{ ref('stg_web_requests') }}
    union all
    select
        'readings' as stream,
        _offset,
        event_id,
        measured_at as event_time,
        event_date,
        _append_time as append_time
    from {{ ref('stg_readings') }}
)

select
    events.stream,
    events._offset,
    events.event_id,
    events.event_time,
    events.event_date,
    events.append_time,
    first_seals.seal_offset as first_seal_offset,
    first_seals.sealed_at as first_sealed_at
from events
inner join first_seals on events.stream = first_seals.stream and events.event_date = first_seals.event_date
where events._offset >= first_seals.seal_offset
