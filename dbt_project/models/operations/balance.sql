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
    -- The file's lines have no number of their own.
    row_number() over (partition by run_id order by stream, left_name, right_name, left_rows, right_rows) as line_no,
    stream,
    left_name,
    left_rows,
    right_name,
    right_rows,
    left_rows - right_rows as difference,
    is_balanced
from {{ source('operations', 'balance_lines') }}
