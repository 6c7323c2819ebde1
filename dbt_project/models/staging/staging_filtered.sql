select
    'order_lines' as stream,
    'stg_order_lines' as model,
    count(*) as lake_rows,
    count(*) filter (where not ({{ keep_order_line() }})) as filtered_rows
from {{ source('events', 'order_lines') }}
