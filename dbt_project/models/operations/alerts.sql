{{ config(
    materialized='incremental',
    incremental_strategy='delete+insert',
    unique_key='alert_id',
    on_schema_change='append_new_columns',
    full_refresh=false,
) }}
select
    alert_id,
    raised_at,
    kind,
    dag_id,
    run_id,
    task_id,
    message
from {{ source('operations', 'alerts') }}
