-- Of no sale are more units taken back than it sold, and what is left of it after the last is the rest.
select
    sale_offset,
    any_value(sale_units) as sale_units,
    sum(units) as units_taken_back,
    min(sale_units_left) as units_left
from {{ ref('fct_cancellations') }}
where sale_offset is not null
group by sale_offset
having sum(units) + min(sale_units_left) <> any_value(sale_units) or min(sale_units_left) < 0
