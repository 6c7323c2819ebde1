{#- None of the columns is NULL in any row: one query for all, where dbt's own not_null takes one for each. -#}
{% test never_null(model, columns) %}
select *
from {{ model }}
where {{ columns | join(' is null or ') }} is null
{% endtest %}
