select
    'order_lines' as stream,
    'stg_order_lines' as model,
    count(*) as lake_rows,
    count(*) filter (where not ({{ keep_order_line() }})) as filtered_rows
from {{ source('events', 'order_lines') }}
union all
select
    'web_requests' as stream,
    'stg_web_requests' as model,
    count(*) as lake_rows,
    count(*) filter (where not ({{ keep_web_request() }})) as filtered_rows
from {{ source('events', 'web_requests') }}
union all
select
    'readings' as stream,
    'stg_readings' as model,
    count(*) as lake_rows,
    count(*) filter (where not ({{ keep_reading() }})) as filtered_rows
from {{ source('events', 'readings') }}
