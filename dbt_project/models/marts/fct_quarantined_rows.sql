select
    stream,
    row_id,
    append_time,
    append_time::date as append_date,
    at_offset,
    producer_id,
    sequence,
    row_index,
    rule,
    field,
    message,
    replayed
from {{ source('operations', 'quarantined_rows') }}
