with printed as (
    select
        product_code,
        product_name,
        count(*) filter (where kind = 'sale') as sale_lines,
        max((invoiced_at, _offset)) as last_printed
    from {{ ref('int_order_lines_products') }}
    where product_name is not null
    group by product_code, product_name
)

select
    product_code,
    -- Two names may be on as many sales; none are printed last together, as `_offset` is in it.
    arg_max(product_name, (sale_lines, last_printed)) as product_name,
    count(*) as names
from printed
group by product_code
