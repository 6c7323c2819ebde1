{{ config(materialized='table', tags=['live']) }}
with lines as (
    -- A code in small letters is the same product.
    select
        upper(stock_code) as stock_code,
        description,
        quantity,
        unit_price,
        invoiced_at,
        _offset
    from {{ source('events', 'order_lines') }}
    where quantity > 0 and unit_price > 0
)

select
    lines.stock_code,
    -- Of the lines with a description: arg_max passes over NULL.
    arg_max(lines.description, (lines.invoiced_at, lines._offset)) as description,
    count(*) as lines,
    sum(lines.quantity) as units,
    sum(lines.quantity * lines.unit_price) as revenue,
    sum(lines.quantity * lines.unit_price) / sum(lines.quantity) as revenue_per_unit,
    min(lines.unit_price) as lowest_price,
    max(lines.unit_price) as highest_price,
    avg(lines.unit_price) as average_price,
    stddev_samp(lines.unit_price) as price_deviation
from lines
anti join {{ ref('service_codes') }} as service_codes on lines.stock_code = service_codes.stock_code
group by lines.stock_code
