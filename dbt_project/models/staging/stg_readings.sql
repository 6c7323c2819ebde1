select
    event_id,
    measured_at,
    host,
    sensor,
    metric,
    value,
    unit,
    event_date,
    _append_time,
    _partition,
    _offset
from {{ source('events', 'readings') }}
where {{ keep_reading() }}
