with products as (
    select
        product_code,
        count(distinct stock_code) as spellings,
        min(invoiced_at) filter (where kind = 'sale') as first_sold_at,
        max(invoiced_at) filter (where kind = 'sale') as last_sold_at,
        arg_max(unit_price, (invoiced_at, _offset)) filter (where kind = 'sale') as last_price,
        min(unit_price) filter (where kind = 'sale') as lowest_price,
        max(unit_price) filter (where kind = 'sale') as highest_price,
        count(distinct customer_id) filter (where kind = 'sale') as customers,
        count(*) as lines,
        coalesce(sum(quantity) filter (where kind = 'sale'), 0)::bigint as units_sold,
        coalesce(-sum(quantity) filter (where kind = 'cancellation'), 0)::bigint as units_cancelled,
        sum(line_amount) as revenue
    from {{ ref('int_order_lines_products') }}
    group by product_code
)

select
    products.product_code,
    names.product_name,
    coalesce(names.names, 0) as names,
    products.spellings,
    service_codes.stock_code is null as is_product,
    service_codes.meaning as service,
    products.first_sold_at,
    products.last_sold_at,
    products.last_price,
    products.lowest_price,
    products.highest_price,
    products.customers,
    products.lines,
    products.units_sold,
    products.units_cancelled,
    products.revenue
from products
left join {{ ref('int_product_names') }} as names on products.product_code = names.product_code
left join {{ ref('service_codes') }} as service_codes on products.product_code = service_codes.stock_code
