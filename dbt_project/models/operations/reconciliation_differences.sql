{{ config(
    materialized='incremental',
    incremental_strategy='delete+insert',
    unique_key='run_id',
    on_schema_change='append_new_columns',
    full_refresh=false,
    pre_hook='{{ forget_told_runs() }}',
) }}
select
    run_id,
    view,
    row_number() over (
        partition by run_id, view order by window_start, group_key, column_name, live, batch
    ) as difference_no,
    window_start,
    group_key,
    column_name,
    live,
    batch,
    difference,
    cause
from {{ source('operations', 'differences') }}
