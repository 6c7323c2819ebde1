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
    stream,
    windows,
    rows,
    differences,
    explained,
    differences - explained as unexplained,
    note
from {{ source('operations', 'compared_views') }}
