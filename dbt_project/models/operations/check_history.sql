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
    suite,
    row_number() over (
        partition by run_id, suite order by subject, expectation, severity, observed, unexpected_rows
    ) as check_no,
    subject,
    expectation,
    severity,
    success,
    rows,
    unexpected_rows,
    observed
from {{ source('operations', 'check_results') }}
