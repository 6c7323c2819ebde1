{#- Before a model of the operations takes what the runs' folders tell: delete what it holds of those runs. A run that
    was repeated may tell fewer rows than before, or none, which dbt's own delete+insert would not see. Rows of runs
    whose folders are gone stay. -#}
{%- macro forget_told_runs() -%}
{%- if is_incremental() -%}
delete from {{ this }} where run_id in (select run_id from {{ source('operations', 'runs') }})
{%- endif -%}
{%- endmacro -%}
