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
    dag_id,
    dag_run_id,
    first_date,
    last_date,
    state,
    failed_stage,
    error,
    started_at,
    ended_at,
    (epoch_us(ended_at) - epoch_us(started_at)) / 1e6 as seconds,
    streams,
    rows_late
from {{ source('operations', 'runs') }}
