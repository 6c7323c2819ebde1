select
    event_id,
    requested_at,
    {{ hashed('host') }} as host_hash,
    method,
    url,
    split_part(url, '?', 1) as path,
    status,
    bytes,
    status >= 400 as is_error,
    event_date,
    _append_time,
    _partition,
    _offset
from {{ source('events', 'web_requests') }}
where {{ keep_web_request() }}
