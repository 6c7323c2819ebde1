{#- The columns together identify a row; NULL counts as a value. -#}
{% test unique_together(model, columns) %}
select
    {{ columns | join(', ') }},
    count(*) as copies
from {{ model }}
group by all
having count(*) > 1
{% endtest %}
